"""An import leaves the organisation's agents their share of the limit, ends in time, and shows how far it is."""

import json
import time
from typing import Any

import pytest

from f.kustomer.history.jobs import Pace, TimeIsUp, clock
from tests.history.conftest import Site, history
from tests.standin.bulk import Bulk
from tests.standin.faults import Fault
from tests.standin.windmill import Workspace


@pytest.mark.parametrize(
    ("agents", "tell_reset"), [(0, False), (40, False), (0, True), (40, True), (120, True)], ids=str
)
@pytest.mark.parametrize("keep", [0, 0.5, 0.95])
def test_agents_keep_their_share(site: Site, keep: float, agents: int, tell_reset: bool) -> None:
    """No answer says that less than the share is left but for what agents use meanwhile, and nobody is refused.

    Where no answer says when the window ends, one request a minute finds out, after whatever the agents have used.
    """
    rows = history(400, threads=200, customers=100)
    site.put(rows)
    site.kustomer.org_limit = 300
    site.kustomer._budget.agents = agents
    site.kustomer.tell_reset = tell_reset
    try:
        result = site.run(keep=keep)
        assert result["created"] == 400
        assert site.kustomer.lowest_remaining >= 300 * keep - (agents / 5 if tell_reset else agents)
        assert not keep or site.kustomer.agents_refused == 0
    finally:
        site.kustomer._budget.agents = 0
    site.assert_once(rows)


def test_the_share_that_is_free_is_used(site: Site, waited: list[float]) -> None:
    """An import that only waits would be safe, too: it must come near the rate that it may have."""
    site.put(history(1_000, threads=1_000, customers=50))
    site.kustomer.org_limit = 300
    result = site.run(keep=0.5)
    a_minute = result["requests"] / (sum(waited) / 60)
    assert 110 <= a_minute <= 160


def test_a_limit_that_is_used_up_is_waited_for(site: Site) -> None:
    """Also where others use all of it for minutes, longer than any step would wait."""
    rows = history(20)
    site.put(rows)
    full = Fault.answer(429, {"errors": []}, {"x-ratelimit-remaining": "0"}, at="/v1/messages/bulk")
    site.kustomer.fault(*[full] * 20)
    result = site.run()
    assert result["created"] == 20
    assert sum(seen.path == "/v1/messages/bulk" for seen in site.kustomer.requests) == 21
    site.assert_once(rows)


def test_a_limit_that_stays_used_up_ends_with_the_time_that_was_given(site: Site, waited: list[float]) -> None:
    """What could not be sent is left."""
    site.put(history(20))
    site.kustomer.fault(*[Fault.answer(429, {"errors": []}, at="/v1/messages/bulk") for _ in range(500)])
    result = site.run(seconds=600)
    site.kustomer._faults.clear()
    assert result["left"] == 20
    assert result["again"], "its conversations are made"
    assert 400 < sum(waited) <= 600


@pytest.mark.parametrize("at", ["/v1/customers/bulk", "/v1/bulk/", "/v1/conversations/externalId"])
@pytest.mark.parametrize("seconds", [60, 200])
def test_waits_for_a_limit_or_a_failing_server_end_with_the_time(
    site: Site, waited: list[float], at: str, seconds: float
) -> None:
    """Those of each request, too, which alone may last for a minute."""
    site.put(history(200, threads=150))
    on = "POST" if at.endswith("bulk") else "GET"
    faults = [Fault.answer(429, {"errors": []}, {"Retry-After": "25"}, at=at, on=on) for _ in range(9)]
    site.kustomer.fault(*faults, *[Fault.answer(503, b"", {"Retry-After": "40"}, at=at, on="GET") for _ in range(9)])
    site.run(seconds=seconds)
    site.kustomer._faults.clear()
    assert sum(waited) <= seconds


def test_seconds_in_which_nothing_can_be_recorded_are_told(site: Site) -> None:
    """Else it would be run again and again, and never come to anything."""
    site.put(history(400, threads=400))
    site.kustomer.org_limit = 300
    result = site.run(seconds=20)
    assert result["left"] == 400
    assert "give it more" in result["remarks"][-1]
    assert "give it more" not in " ".join(site.run(seconds=200)["remarks"])


@pytest.mark.parametrize("seconds", [5, 20, 60, 100])
def test_a_part_ends_by_itself_and_goes_on_the_next_time(site: Site, waited: list[float], seconds: float) -> None:
    """Run again until it is done: each message once, and each run within its time."""
    rows = history(200, threads=50)
    site.put(rows)
    site.kustomer.jobs.bulk = Bulk(per_item=0.05)
    created, runs = 0, 0
    while True:
        before = sum(waited)
        result = site.run(seconds=seconds, fresh=True)
        assert sum(waited) - before <= seconds + 5
        created += result["created"]
        runs += 1
        if not result["left"] and not result["unknown"]:
            break
        assert runs < 60
        assert "time" in result["remarks"][-1]
    assert result["created"] + result["already"] == 200
    assert (runs > 1) == (seconds < 60)
    site.assert_once(rows)


def test_a_sign_of_life_every_few_seconds(site: Site, waited: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Rows done, of how many, requests left, time to go; not a line for each request."""
    site.put(history(1_000, threads=100))
    site.run()
    lines = capsys.readouterr().out.splitlines()
    assert sum(waited) / 15 < len(lines) < sum(waited) / 4 + 10
    assert "1,000 of 1,000 rows" in lines[-1]
    assert any("requests left" in line and "to go" in line for line in lines)


def test_the_job_shows_a_bar(site: Site, workspace: Workspace) -> None:
    """It goes forward only, and ends below 100, as Windmill wants it."""
    rows = history(600, threads=50)
    workspace.store("inbox/history.ndjson", "".join(f"{json.dumps(each)}\n" for each in rows).encode())
    site.run()
    shown = [each.body["percent"] for each in workspace.requests if "set_progress" in each.path]
    assert shown == sorted(set(shown))
    assert shown
    assert all(0 <= each <= 99 for each in shown)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock of the test's own: the time now."""
    at = [0.0]

    def sleep(seconds: float) -> None:
        at[0] += seconds

    monkeypatch.setattr(clock, "now", lambda: at[0])
    monkeypatch.setattr(time, "sleep", sleep)
    return at


def headers(limit: int, remaining: int, **other: Any) -> dict[str, str]:
    """What an answer says of the limit."""
    return {"x-ratelimit-limit": str(limit), "x-ratelimit-remaining": str(remaining), **other}


def pace_of(keep: float, seconds: float | None = None, tick: Any = lambda _: None) -> Pace:
    """A pace as an import has it."""
    return Pace(keep, seconds, tick)


def test_requests_are_spread_over_the_window(held: list[float]) -> None:
    """What is free is not used up in its first seconds."""
    pace, left, sent = pace_of(0.5), 1_000, []
    while held[0] < 60:
        pace.wait()
        sent.append(held[0])
        left -= 1
        pace.see(headers(1_000, left))
    assert 400 <= len(sent) <= 490
    first, last = (sum(start <= at < start + 15 for at in sent) for start in (0, 45))
    assert first == pytest.approx(last, rel=0.2)


def test_below_the_reserve_nothing_is_sent_until_the_window_ends(held: list[float]) -> None:
    """Whoever used it up."""
    pace = pace_of(0.5)
    pace.wait()
    pace.see(headers(1_000, 400, **{"x-ratelimit-reset": "17"}))
    pace.wait()
    assert held[0] == pytest.approx(17)


@pytest.mark.parametrize("told", [{}, {"x-ratelimit-limit": "odd"}, {"x-ratelimit-remaining": "-1"}])
def test_an_organisation_that_tells_no_limit_is_taken_for_the_smallest(held: list[float], told: dict[str, str]) -> None:
    """300 a minute, of which half is left."""
    pace, sent = pace_of(0.5), 0
    while held[0] < 60:
        pace.wait()
        pace.see(told)
        sent += 1
    assert 140 <= sent <= 152


def test_time_is_up_a_little_before_the_end(held: list[float]) -> None:
    """What is under way takes a while to come to its end."""
    pace = pace_of(0, seconds=100)
    with pytest.raises(TimeIsUp):
        pace.sleep(1_000)
    assert 85 <= held[0] <= 95
    with pytest.raises(TimeIsUp):
        pace.wait()


def test_long_waits_give_signs_of_life(held: list[float]) -> None:
    """Every few seconds."""
    signs: list[float] = []
    pace_of(0, tick=lambda _: signs.append(held[0])).sleep(60)
    assert len(signs) >= 11

"""An import that is killed at any moment and run again records each message once."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from f.kustomer.history import plan, threads
from f.kustomer.history.jobs import DEAD_SECONDS, AtWork
from f.kustomer.shared import client, storage
from f.kustomer.shared.wire import Reply, exchange
from tests.history.conftest import Site, history
from tests.standin.bulk import Bulk

ROWS = history(16, threads=5, customers=3)


class KilledError(BaseException):
    """SIGKILL as seen from inside: nothing of the import runs any more."""


class Death:
    """Kills the import at its nth request or note, before it or after it."""

    def __init__(self) -> None:
        """Nobody dies unless told."""
        self.what, self.at, self.after = "", 0, False

    def plan(self, what: str, at: int, after: bool) -> None:
        """Let the import die at the ``at``th request or note, counted from 1."""
        self.what, self.at, self.after = what, at, after

    def at_each(self, do: Callable[..., Any], *names: str) -> Callable[..., Any]:
        """Return ``do`` as something at which the import may die; its first argument may be one of its names."""

        def may_die(*given: Any) -> Any:
            here = self.what in (*names, given[0]) if isinstance(given[0], str) else self.what in names
            self.at -= here
            if here and self.at == 0 and not self.after:
                raise KilledError
            result = do(*given)
            if here and self.at == 0:
                if isinstance(result, Reply):
                    result.settle(False)  # its connection would die with the process
                raise KilledError
            return result

        return may_die


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch, site: Site) -> Death:
    """What kills the import; requests and threads are few, as it runs many times."""
    death = Death()
    monkeypatch.setattr(storage, "write", death.at_each(storage.write, "note"))
    monkeypatch.setattr(client, "exchange", death.at_each(exchange, "request"))
    monkeypatch.setattr(threads, "WAVE", 3)
    monkeypatch.setattr(plan, "MAX_ITEMS", 4)
    site.put(ROWS)
    return death


def deaths(site: Site, death: Death, what: str, **given: Any) -> Iterator[str]:
    """Begin an import anew again and again, and let each die at a later moment; stop when one lives to its end."""
    for at in range(1, 1_000):
        for after in (False, True):
            site.clear()
            death.plan(what, at, after)
            try:
                site.run(**given)
            except KilledError:
                death.plan("", 0, False)
                yield f"killed {'after' if after else 'before'} {what} {at}"
            else:
                assert at > 7, "it died nowhere"
                return


def again(site: Site, **given: Any) -> Any:
    """Run the import again once the sign of life that the killed one gave is too old to be one."""
    site.kustomer.advance(DEAD_SECONDS)
    return site.run(**given)


@pytest.mark.parametrize("fresh", [False, True], ids=["looking", "fresh"])
@pytest.mark.parametrize("what", ["request", "note"])
def test_a_killed_import_run_again_records_each_message_once(site: Site, death: Death, what: str, fresh: bool) -> None:
    """Whenever it dies, the next run finds out what was recorded, and records the rest."""
    for when in deaths(site, death, what, fresh=fresh):
        result = again(site, fresh=fresh)
        assert result["created"] + result["already"] == len(ROWS), (when, result)
        site.kustomer.advance(1_000)  # so that whatever is still under way ends
        site.assert_once(ROWS)


def test_a_run_that_may_be_alive_is_not_taken_for_dead(site: Site, death: Death) -> None:
    """Another one ends at once, and sends nothing but the look at its key."""
    for _ in deaths(site, death, "POST", fresh=True):
        sent = len(site.kustomer.requests)
        with pytest.raises(AtWork, match="just now") as raised:
            site.run(fresh=True)
        assert raised.value.retryable
        assert 0 < (raised.value.retry_after or 0) <= DEAD_SECONDS
        assert len(site.kustomer.requests) == sent + 1


@pytest.mark.parametrize(
    "bulk", [Bulk(delay=70), Bulk(results=False), Bulk(per_item=3)], ids=["late", "silent", "slow"]
)
def test_whatever_kustomers_jobs_are_like(site: Site, death: Death, bulk: Bulk) -> None:
    """Jobs that begin late, tell nothing, or are slow are waited for."""
    site.kustomer.jobs.bulk = bulk
    for when in deaths(site, death, "POST", fresh=True):
        result = again(site, fresh=True)
        assert result["created"] + result["already"] == len(ROWS), (when, result)
        site.kustomer.advance(1_000)  # so that whatever is still under way ends
        site.assert_once(ROWS)


@pytest.mark.parametrize(
    "change",
    [{"app": "other"}, {"limit": 12}, {"file": "corrected"}, {"file": "longer"}, {}],
    ids=["app", "limit", "corrected file", "file of more parts", "none"],
)
def test_another_import_knows_what_a_killed_one_had_under_way(
    site: Site, death: Death, change: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody cancels, changes a setting or the file, and starts again, still saying that all is fresh."""
    rows = [{**row, "text": "corrected"} if at == 3 else row for at, row in enumerate(ROWS)]
    for when in deaths(site, death, "POST", fresh=True):
        if change.get("file"):
            site.put(rows)
        if change.get("file") == "longer":
            monkeypatch.setattr(plan, "ROWS_OF_A_PART", 6)
        given = {name: each for name, each in change.items() if name != "file"}
        result = again(site, fresh=True, **given)
        assert result["created"] + result["already"] >= (10 if "limit" in change else 16), (when, result)
        assert max(site.recorded().values()) == 1, when
        rest = site.run(fresh=True)
        assert rest["created"] + rest["already"] == 16, when
        monkeypatch.setattr(plan, "ROWS_OF_A_PART", 20_000)
        site.put(ROWS)
        site.kustomer.advance(1_000)
        assert sorted(site.recorded().values()) == [1] * 16


@pytest.mark.parametrize("fresh", [False, True], ids=["looking", "fresh"])
def test_where_nothing_is_unique_a_killed_import_still_doubles_nothing(
    site: Site, death: Death, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No page says that Kustomer refuses a second conversation, and customers may share addresses."""
    monkeypatch.setitem(site.kustomer._unique, "customers", frozenset())
    for when in deaths(site, death, "POST", fresh=fresh):
        result = again(site, fresh=fresh)
        assert result["created"] + result["already"] == len(ROWS), when
        site.kustomer.advance(1_000)
        site.assert_once(ROWS)


def test_a_job_whose_id_is_noted_is_waited_for_however_late_it_begins(site: Site, death: Death) -> None:
    """Looks alone would take it for lost: for five minutes they would show nothing, again and again."""
    for at in range(1, 12):
        site.clear()
        site.kustomer.jobs.next(Bulk(delay=300), "messages")
        death.plan("GET", at, after=True)
        with suppress(KilledError):
            site.run(fresh=True)
        death.plan("", 0, False)
        result = again(site, fresh=True)
        assert result["created"] + result["already"] == len(ROWS), at
        site.kustomer.advance(1_000)
        site.assert_once(ROWS)

"""Whatever the file holds and whatever fails on the way: the numbers add up, and each message is recorded once."""

import math
import random
from contextlib import suppress
from typing import Any

import pytest

from f.kustomer.history import plan, threads
from f.kustomer.shared import client, storage
from f.kustomer.shared.errors import KustomerError
from f.kustomer.shared.wire import exchange
from tests.history.conftest import Site, history
from tests.history.test_kills import Death, KilledError
from tests.standin.bulk import Bulk
from tests.standin.faults import Fault

PATHS = (
    "/v1/messages/bulk",
    "/v1/conversations/bulk",
    "/v1/customers/bulk",
    "/v1/bulk/",
    "/v1/conversations/",
    "/v1/c",
)


def faults(made: random.Random) -> list[Fault]:
    """Some of what can go wrong with requests."""
    found = []
    for _ in range(made.randrange(6)):
        at, store = made.choice(PATHS), made.random() < 0.5
        on = "POST" if at.endswith("/bulk") else "GET"
        kind = made.randrange(5)
        if kind == 0:
            found.append(Fault.answer(made.choice([500, 503, 504]), b"<html>", at=at, on=on, store=store))
        elif kind == 1:
            found.append(Fault.answer(429, {"errors": []}, at=at, on=on))
        elif kind == 2:
            found.append(Fault.cut(at=at, on=on, store=store))
        elif kind == 3:
            found.append(Fault.reset(at=at, on=on, store=store))
        elif on == "POST":
            found.append(Fault.late_store(at=at))
    return found


def wrong(rows: list[Any], made: random.Random) -> tuple[list[Any], list[Any]]:
    """Return the rows with some mistakes in them, and those of them that are right."""
    right = [dict(row) for row in rows]
    found: list[Any] = list(right)
    for _ in range(made.randrange(4)):
        row = made.choice(rows)
        mistake = made.choice(["missing", "again", "other", "private"])
        if mistake == "missing":
            found.append({**row, "messageId": "x", made.choice(["threadId", "sentAt", "email"]): None})
        elif mistake == "again":
            found.append(dict(row))
        elif mistake == "other":
            found.append({**row, "text": "something else"})
        else:
            found.append({**row, "messageId": "y", "private": True})
    return found, right


def bulk(made: random.Random) -> Bulk:
    """Some way in which jobs may go."""
    return Bulk(
        order=made.choice(["given", "reversed", made.randrange(100)]),
        delay=made.choice([0, 0.5, 20, 130, 700]),
        per_item=made.choice([0, 0.005, 2]),
        batch_size=made.choice([1, 3, 40]),
        results=made.random() < 0.8,
        flat=made.random() < 0.5,
    )


def settings(made: random.Random, parts: int) -> dict[str, Any]:
    """Some way in which it may be run."""
    given: dict[str, Any] = {"fresh": made.random() < 0.5}
    if made.random() < 0.2:
        given["limit"] = made.randrange(1, 20)
    elif made.random() < 0.5:
        given["part"] = made.randrange(parts)
    if made.random() < 0.2:
        given["seconds"] = made.choice([20, 100, 300])
    if made.random() < 0.15:
        given["app"] = "another"
    return given


def trial(site: Site, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Import a file at random until nothing is left, and compare what is said with what is recorded."""
    made = random.Random(seed)
    monkeypatch.setattr(threads, "WAVE", made.choice([2, 5, 100]))
    monkeypatch.setattr(plan, "MAX_ITEMS", made.choice([3, 10, 100]))
    death = Death()
    monkeypatch.setattr(client, "exchange", death.at_each(exchange, "request"))
    monkeypatch.setattr(storage, "write", death.at_each(storage.write, "note"))
    rows, right = wrong(history(made.randrange(1, 40), made.randrange(1, 9), made.randrange(1, 5), seed), made)
    site.put(rows)
    parts = made.choice([1, 1, 2, 3])
    monkeypatch.setattr(plan, "ROWS_OF_A_PART", math.ceil(len(rows) / parts))
    parts = plan.parts_of(len(rows))
    site.kustomer.lag = made.choice([0, 0, 40])
    fresh = made.random() < 0.5
    for attempt in range(12):
        site.kustomer.jobs.bulk = bulk(made)
        for fault in faults(made):
            site.kustomer.fault(fault)
        what = made.choice(["", "", "request", "note"])
        death.plan(what, made.randrange(1, 40), made.random() < 0.5)
        site.kustomer.advance(made.choice([0, 60, 120, 1_000]))
        with suppress(KilledError, KustomerError):  # the latter where it can't begin, after which it returns numbers
            result = site.run(**settings(made, parts) | ({} if fresh else {"fresh": False}))
            recorded = sum(site.recorded().values())
            assert result["created"] + result["already"] <= recorded + len(rows) - len(right), (seed, attempt)
        site.kustomer._faults.clear()
        death.plan("", 0, False)
        assert max(site.recorded().values(), default=1) == 1, (seed, attempt)
    site.kustomer.jobs.bulk = Bulk()
    site.kustomer.advance(10_000)  # so that whatever is still under way ends
    for _ in range(3):
        result = site.run(fresh=fresh)
    site.kustomer.lag = 0
    assert not result["left"] + result["unknown"], (seed, result)
    assert result["rows"] == len(rows)
    site.kustomer.advance(10_000)
    site.assert_once(right)


@pytest.mark.parametrize("seed", range(8))
def test_each_message_is_recorded_once_in_the_end(site: Site, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, faults, jobs, kills, settings and lags at random; then it is run until nothing is left."""
    trial(site, seed, monkeypatch)

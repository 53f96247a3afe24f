"""Whatever the file holds and whatever fails on the way: the numbers add up, and each message is recorded once."""

import random
from collections import Counter
from typing import Any

import pytest

from f.kustomer.history import plan, threads
from f.kustomer.shared import client
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
        delay=made.choice([0, 0.5, 20]),
        per_item=made.choice([0, 0.005, 2]),
        batch_size=made.choice([1, 3, 40]),
        results=made.random() < 0.8,
        flat=made.random() < 0.5,
    )


@pytest.mark.parametrize("seed", range(40))
def test_each_message_is_recorded_once_in_the_end(site: Site, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, faults, jobs, kills and settings at random; the import is run until nothing is left."""
    made = random.Random(seed)
    monkeypatch.setattr(threads, "WAVE", made.choice([2, 5, 500]))
    monkeypatch.setattr(plan, "MAX_ITEMS", made.choice([3, 10, 100]))
    death = Death()
    monkeypatch.setattr(client, "exchange", death.at_each(exchange, "request"))
    rows, right = wrong(history(made.randrange(1, 40), made.randrange(1, 9), made.randrange(1, 5), seed), made)
    site.put(rows)
    fresh, parts = made.random() < 0.5, made.choice([1, 1, 2])
    left = list(range(parts))
    created = Counter[int]()
    for attempt in range(30):
        part = made.choice(left)
        site.kustomer.jobs.bulk = bulk(made)
        for fault in faults(made) if attempt < 10 else []:
            site.kustomer.fault(fault)
        death.plan(
            "request" if attempt < 10 and made.random() < 0.4 else "", made.randrange(1, 40), made.random() < 0.5
        )
        try:
            result = site.run(fresh=fresh, part=part, parts=parts)
        except (KilledError, KustomerError):  # the latter at its first request only, after which it returns numbers
            continue
        finally:
            site.kustomer._faults.clear()
            death.plan("", 0, False)
        created[part] += result["created"]
        if not result["left"] and not result["unknown"]:
            left.remove(part)
        if not left:
            break
    assert not left, "it came to an end"
    site.kustomer.jobs.bulk = Bulk()
    site.kustomer.advance(10_000)  # so that whatever is still under way ends
    site.assert_once(right)
    ends = [site.run(fresh=fresh, part=part, parts=parts) for part in range(parts)]
    assert sum(each["rows"] for each in ends) == len(rows)
    assert sum(created.values()) <= len(right)

"""Which rows are imported, in which order and in which requests, and that each counts once."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from f.kustomer.history.plan import (
    STATUSES,
    Forecast,
    Plan,
    Row,
    Status,
    Thread,
    batches,
    part_of,
    parts_of,
)


def row(number: int, message: str = "", thread: str = "t", at: float = 0, **other: Any) -> Row:
    """A row of a file: its message is named by its number unless told."""
    body = {"preview": other.pop("text", "hello"), "direction": other.pop("direction", "in")}
    customer = other.pop("customer", {"email": "ada@example.com"})
    return Row(number, message or f"m{number}", thread, customer, "2020-01-31T09:30:00Z", at, body, [])


PLANS: list[Plan] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No plan of a test outlives it."""
    yield
    while PLANS:
        PLANS.pop().close()


def plan_of(
    *rows: Row | tuple[int, list[tuple[str, str]]], part: int | None = None, parts: int = 1, limit: int | None = None
) -> Plan:
    """A part's plan of these rows, ready to be worked on."""
    plan = Plan(part, parts)
    PLANS.append(plan)
    for each in rows:
        if isinstance(each, Row):
            plan.add(each.number, each)
        else:
            plan.add(*each)
    plan.choose(limit)
    return plan


def threads(plan: Plan, after: int = 0, most: int = 1_000) -> list[Thread]:
    """The threads to import, part by part."""
    return [each for part in range(4) for each in plan.threads(part, after, most)]


def chosen(plan: Plan) -> list[int]:
    """The rows that are to be imported, in the order of their import."""
    return plan.order(threads(plan))


def test_a_row_comes_back_as_it_was() -> None:
    """Nothing of a row is lost on the disk, whatever its texts hold."""
    odd = Row(
        7,
        "m",
        "t",
        {"name": "Zoë"},
        "2020",
        1.5,
        {"direction": "in", "preview": "\ud83d ✓", "meta": {"a\0": [1, None]}},
        [{"s3": "x"}],
    )
    plan = plan_of(odd)
    assert plan.message(7) == odd
    assert plan.oldest(Thread(7, "t")) == odd


def test_threads_come_in_the_files_order_and_messages_by_date() -> None:
    """A thread is begun where the file begins it; inside it the date counts, then the row."""
    plan = plan_of(
        row(1, thread="b", at=5), row(2, thread="a", at=9), row(3, thread="b", at=4), row(4, thread="a", at=9)
    )
    assert threads(plan) == [Thread(1, "b"), Thread(2, "a")]
    assert chosen(plan) == [3, 1, 2, 4]


def test_threads_are_listed_piece_by_piece() -> None:
    """What comes after a thread is found by its first row, also where that thread is in another part."""
    plan = plan_of(*(row(number, thread=f"t{number}") for number in range(1, 8)))
    assert [each.first for each in threads(plan, 0, 3)] == [1, 2, 3]
    assert [each.first for each in threads(plan, 3, 3)] == [4, 5, 6]
    assert threads(plan, 7) == []
    assert plan.threads_at([4, 8]) == plan.find(["t4", "t8"]) == [Thread(4, "t4")]


def test_whom_a_thread_is_with_its_oldest_message_from_a_customer_says() -> None:
    """Else its oldest message; who shares an identifier is the same."""
    ada, bob, eve = ({"email": f"{name}@example.com"} for name in ("ada", "bob", "eve"))
    plan = plan_of(
        row(1, thread="a", at=1, customer=bob, direction="out"),
        row(2, thread="a", at=3, customer=eve),
        row(3, thread="a", at=2, customer={**ada, "phone": "+491"}),
        row(4, thread="a", at=4, customer={**ada, "externalId": "7"}),
        row(5, thread="b", at=2, customer=eve, direction="out"),
        row(6, thread="b", at=1, customer=bob, direction="out"),
        row(7, thread="c", at=1, customer=bob),
    )
    assert [plan.speaker(each).number for each in threads(plan)] == [3, 6, 7]
    assert plan.other_customers() == {"threads": 2, "rows": [1, 5]}


def test_what_is_done_is_not_imported_again() -> None:
    """Rows that are marked are left out, in whatever order the others come."""
    plan = plan_of(row(1), row(2), row(3, thread="b"))
    plan.mark([2], "created")
    assert chosen(plan) == [1, 3]
    assert list(plan.ids(Thread(1, "t"))) == [(1, "m1")]
    assert plan.unfinished(threads(plan)) == [1, 3]
    plan.mark([1], "already")
    assert plan.unfinished(threads(plan)) == [3]


def test_an_earlier_job_s_work_is_taken_over() -> None:
    """All threads up to a row are recorded, but for those that were left open."""
    plan = plan_of(*(row(number, thread=f"t{(number + 1) // 2}") for number in range(1, 9)))
    plan.mark_done(0, 5, but=[3])
    assert plan.counts() == {"created": 0, "already": 4, "refused": 0, "unknown": 0, "left": 4}
    assert chosen(plan) == [3, 4, 7, 8]


def test_of_rows_with_one_message_id_the_first_counts() -> None:
    """A further row that says something else is told with the first one's number, in whatever thread it is."""
    plan = plan_of(row(3, "x"), row(5, "x", text="other"), row(6, "x", thread="elsewhere"))
    assert chosen(plan) == [3]
    assert plan.counts() == {"created": 0, "already": 0, "refused": 2, "unknown": 0, "left": 1}
    (reason,) = plan.reasons()
    assert (reason["rows"], reason["example"]) == (2, 5)
    assert "row 3" in reason["title"]
    assert [number for number, _ in plan.refused()] == [5, 6]


@pytest.mark.parametrize(
    ("first", "again"),
    [("created", "already"), ("already", "already"), ("refused", "refused"), ("unknown", "unknown"), ("left", "left")],
)
def test_the_same_row_again_has_the_fate_of_the_first(first: Status, again: Status) -> None:
    """A copy is never recorded, and never called recorded where its first one isn't."""
    plan = plan_of(row(1), row(2, "m1"))
    assert chosen(plan) == [1]
    plan.mark([1], first)
    plan.tell(1, [("text", "is wrong")])
    counts = plan.counts()
    assert {status: number for status, number in counts.items() if number} == dict(Counter([first, again]))
    assert [(each["rows"], each["example"]) for each in plan.reasons()] == [(2, 1)]
    assert list(plan.refused()) == ([(1, "text is wrong"), (2, "text is wrong")] if again == "refused" else [])


def test_a_row_that_can_not_be_read_counts_in_part_0_alone() -> None:
    """It has no thread that would say where it belongs."""
    bad = (4, [("sentAt", "is missing"), ("", "is odd")])
    assert plan_of(bad, part=0, parts=3).counts()["refused"] == 1
    assert [plan_of(bad, part=part, parts=3).rows for part in range(3)] == [1, 0, 0]
    assert len(plan_of(bad).reasons()) == 2


def test_reasons_are_counted_over_all_rows() -> None:
    """Each row once for each, however many they are; what differs by numbers only is one."""
    found = [
        (row, [("a", f"has {row} cells"), ("a", f"has {row + 1:,} cells"), ("b", "is odd")]) for row in range(1, 601)
    ]
    plan = plan_of(*found, *((700 + at, [(f"column-{at:c}", "is odd")]) for at in range(97, 200)))
    reasons = plan.reasons()
    assert reasons[:2] == [
        {"rows": 600, "example": 1, "path": "a", "title": "has 1 cells"},
        {"rows": 600, "example": 1, "path": "b", "title": "is odd"},
    ]
    assert len(reasons) == 50


def test_a_duplicate_is_found_across_parts() -> None:
    """Which row came first is a matter of the whole file, not of the part that holds it."""
    one, two = "a", next(f"b{each}" for each in range(99) if part_of(f"b{each}", 2) != part_of("a", 2))
    rows = (row(1, "x", one), row(2, "x", two))
    counts = [plan_of(*rows, part=part, parts=2).counts() for part in range(2)]
    assert sum(each["left"] for each in counts) == 1
    assert sum(each["refused"] for each in counts) == 1


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(1, [2]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 3]), (6, [1, 2, 3, 4, 5, 6]), (None, [1, 2, 3, 4, 5, 6])],
)
def test_limit_takes_whole_threads_in_the_files_order(limit: int | None, expected: list[int]) -> None:
    """It stops before the first thread that is too long, but of the very first one takes the oldest messages."""
    plan = plan_of(
        row(1, thread="a", at=2),
        row(2, thread="a", at=1),
        row(3, thread="b"),
        row(4, thread="c"),
        row(5, thread="c"),
        row(6, thread="c"),
        limit=limit,
    )
    assert sorted(chosen(plan)) == expected
    assert plan.chosen == len(expected)
    assert plan.counts()["left"] == 6


def test_a_limit_is_one_of_part_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial imports what the whole import begins with, so that they share what is noted."""
    monkeypatch.setattr("f.kustomer.history.plan.ROWS_OF_A_PART", 20)
    rows = [row(number, thread=f"t{number % 17}") for number in range(1, 50)]
    whole, trial = plan_of(*rows), plan_of(*rows, limit=10)
    assert whole.parts == 3
    assert threads(trial) == whole.threads(0, 0, 1_000)[: len(threads(trial))]
    assert chosen(plan_of(*rows, part=0, parts=3, limit=10)) == chosen(trial)
    for part in range(3):
        assert threads(plan_of(*rows, part=part, parts=3)) == whole.threads(part, 0, 1_000)


def test_a_part_is_the_same_in_every_run() -> None:
    """Notes and workers rely on it, so the hash is not Python's own, which differs between processes."""
    assert [part_of(thread, 10) for thread in ("thread-1", "thread-2", "ü\ud83d", "")] == [9, 4, 2, 2]


def test_a_forecast_counts_what_is_to_be_done() -> None:
    """A thread is with one customer, so that those whom only other rows name are not made."""
    ada, bob, eve = ({"email": f"{name}@example.com"} for name in ("ada", "bob", "eve"))
    plan = plan_of(
        row(1, thread="a", at=20, customer=bob),
        row(2, thread="a", at=10, customer={**ada, "name": "Ada"}),
        row(3, thread="b", at=30, customer={**ada, "name": "A."}),
        row(4, thread="c", at=40, customer=eve),
        row(5, "m4", thread="c", at=40, customer=eve),
    )
    assert plan.forecast(fresh=True) == Forecast(threads=3, customers=2, requests=1 + 2 * 3, first=10, last=40)
    assert plan.forecast(fresh=False).requests == 1 + 3 + 2 * 3
    assert plan_of().forecast(fresh=True) == Forecast(0, 0, 1, None, None)


def test_a_forecast_without_data_is_the_same() -> None:
    """A check keeps no texts, and counts as an import does."""
    plan = Plan(with_data=False)
    PLANS.append(plan)
    rows = [row(number, thread=f"t{number % 30}", text="x" * 1_000) for number in range(1, 301)]
    for each in rows:
        plan.add(each.number, each)
    plan.choose()
    assert plan.forecast(fresh=True) == plan_of(*rows).forecast(fresh=True)
    assert plan.forecast(fresh=True).requests == 1 + 2 * (1 + 1 + 4)  # of 1.2 kB each, 95 kB a request


@pytest.mark.parametrize(("rows", "parts"), [(0, 1), (1, 1), (20_000, 1), (20_001, 2), (1_000_000, 50)])
def test_a_file_is_cut_into_parts_of_some_minutes(rows: int, parts: int) -> None:
    """By its rows alone."""
    assert parts_of(rows) == parts


@given(st.lists(st.integers(1, 300), max_size=250), st.integers(1, 2_000))
def test_batches_keep_order_and_limits(sizes: list[int], room: int) -> None:
    """Nothing is lost or moved, no batch is over a limit unless it is one large item, and none could take the next."""
    items = list(enumerate(sizes))
    found = list(batches(items, lambda item: item[1], lambda: room))
    assert [each for batch in found for each in batch] == items
    for at, batch in enumerate(found):
        used = sum(size + 1 for _, size in batch)
        assert 1 <= len(batch) <= 100
        assert used <= room or len(batch) == 1
        if at + 1 < len(found):
            assert len(batch) == 100 or used + found[at + 1][0][1] + 1 > room


def test_room_may_shrink_on_the_way() -> None:
    """What the server says is too large is not tried again."""
    rooms = iter([100, 100, 100] + [20] * 20)
    found = list(batches(range(12), lambda _: 9, lambda: next(rooms)))
    assert [len(batch) for batch in found] == [4, 2, 2, 2, 2]


ROWS = st.lists(
    st.one_of(
        st.builds(
            lambda message, thread, at, text: (f"m{message}", f"t{thread}", at, text),
            st.integers(0, 15),
            st.integers(0, 6),
            st.integers(0, 5),
            st.sampled_from("ab"),
        ),
        st.none(),
    ),
    max_size=40,
)


@given(ROWS, st.integers(1, 4), st.one_of(st.none(), st.integers(1, 20)), st.randoms(use_true_random=False))
def test_every_row_counts_in_one_part_as_one_thing(rows: list[Any], parts: int, limit: int | None, random: Any) -> None:
    """Whatever the file holds and whatever becomes of it, the numbers add up, over the parts and over the statuses."""
    added = [
        row(number, each[0], each[1], each[2], text=each[3]) if each else (number, [("text", "is odd")])
        for number, each in enumerate(rows, 1)
    ]
    total, messages, order = 0, [], []
    for part in range(parts):
        plan = plan_of(*added, part=part, parts=parts, limit=limit)
        for thread in threads(plan):
            assert part_of(thread.id, parts) == part
            found = [plan.message(number) for number in plan.order([thread])]
            assert {each.thread_id for each in found} == {thread.id}
            order.append([(each.at, each.number) for each in found])
            messages += [each.message_id for each in found]
            for each in found:
                plan.mark([each.number], random.choice(STATUSES))
        counts = plan.counts()
        assert sum(counts.values()) == plan.rows
        total += plan.rows
    assert total == len(rows)
    assert len(set(messages)) == len(messages)
    assert len(messages) <= (limit or len(messages))
    assert order == [sorted(each) for each in order]
    if limit is None:
        assert set(messages) == {each.message_id for each in added if isinstance(each, Row)}


@given(ROWS, st.integers(1, 20))
def test_a_limit_only_takes_away(rows: list[Any], limit: int) -> None:
    """A limited run imports what a full one would, in the same order."""
    added = [row(number, *each[:3]) for number, each in enumerate(rows, 1) if each]
    full, limited = chosen(plan_of(*added)), chosen(plan_of(*added, limit=limit))
    assert limited == full[: len(limited)]
    assert bool(limited) == bool(full)


def test_a_plan_is_json_safe() -> None:
    """What it tells goes into a job's result."""
    plan = plan_of(row(1), (2, [("text", "is odd")]))
    assert json.loads(json.dumps([plan.counts(), plan.reasons(), plan.forecast(fresh=True)]))


def test_what_a_column_is_called_can_always_be_told() -> None:
    """A name of the file's own may be no whole text, or very long."""
    name = "\ud800\0" + "x" * 100_000
    plan = plan_of((2, [(name, "is not a known field")]))
    (problem,) = plan.reasons()
    assert problem["path"].startswith("?\ufffdxxx")
    assert len(problem["path"]) <= 1_000
    assert json.dumps(problem).encode()

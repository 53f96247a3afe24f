"""The report says what came of an import, and fails where not all of it is recorded."""

from collections.abc import Callable
from typing import Any

import pytest

from f.kustomer import import_report
from f.kustomer.import_report import ImportIncomplete
from f.kustomer.shared.errors import InvalidInput
from tests.history.conftest import Site, history

main: Callable[[Any], dict[str, Any]] = import_report.main


def result(rows: int, **other: Any) -> dict[str, Any]:
    """What import_messages returns, with all rows recorded unless told."""
    numbers = {"created": 0, "already": 0, "refused": 0, "unknown": 0, "left": 0}
    found = {**numbers, "reasons": [], "remarks": [], "again": False, "refused_rows": None, **other}
    found["created"] = other.get("created", rows - sum(found[each] for each in numbers))
    return {"rows": rows, **found}


def report(*rounds: list[Any], rows: int | None = None) -> str:
    """The report on rounds of parts, whether it is an error or not."""
    known = sum(each.get("rows", 0) for each in rounds[-1]) if rows is None else rows
    try:
        return str(main({"check": {"rows": known}, "rounds": [{"parts": each} for each in rounds]})["md"])
    except ImportIncomplete as error:
        return str(error)


def test_all_is_recorded() -> None:
    """Then there is nothing to do, and the flow succeeds."""
    found = main({"check": {"rows": 30}, "rounds": [{"parts": [result(10), result(20, already=5)]}]})
    assert list(found) == ["md"], "Windmill shows nothing else as formatted text"
    assert "# All of 30 rows" in found["md"]
    assert "| 25 | recorded by this import |" in found["md"]
    assert "| 5 | were there already |" in found["md"]
    assert "next" not in found["md"]


@pytest.mark.parametrize("status", ["refused", "unknown", "left"])
def test_the_flow_fails_where_a_row_is_not_recorded(status: str) -> None:
    """With the report as its text, and the numbers as attributes."""
    with pytest.raises(ImportIncomplete) as raised:
        main({"check": {"rows": 30}, "rounds": [{"parts": [result(10), result(20, **{status: 1})]}]})
    assert "# Not all of 30 rows" in str(raised.value)
    assert vars(raised.value)[status] == 1
    assert raised.value.rows == 30  # type: ignore[attr-defined, unused-ignore]


def test_reasons_are_grouped_with_an_example() -> None:
    """What differs by numbers only is one reason; what people have written can't break the table."""
    one = [{"rows": 3, "example": 7, "path": "messageId", "title": "is that of row 3 already"}]
    other = [
        {"rows": 600, "example": 5, "path": "messageId", "title": "is that of row 1,002 already"},
        {"rows": 1, "example": 9, "path": "", "title": "says | and\n# <b>"},
    ]
    parts = [result(10, refused=3, reasons=one), result(700, refused=601, reasons=other, refused_rows="a.csv.import/r")]
    found = report(parts)
    assert "| 603 | messageId is that of row 1,002 already | 5 |" in found
    assert r"| 1 | says \| and \# \<b\> | 9 |" in found
    assert "`a.csv.import/r`" in found


def test_a_part_that_failed_is_told_and_its_rows_are_unknown() -> None:
    """Its error is all that the loop has of it: it may have been killed after it had recorded all of them."""
    failed = {"error": {"name": "AccessDenied", "message": "401: the key has expired"}}
    with pytest.raises(ImportIncomplete) as raised:
        main({"check": {"rows": 30}, "rounds": [{"parts": [result(10), failed]}]})
    assert (vars(raised.value)["unknown"], vars(raised.value)["left"]) == (20, 0)
    assert "Parts that failed: 1" in str(raised.value)
    assert "the key has expired" in str(raised.value)
    assert "Run the same import again" in str(raised.value)


def test_rounds_add_up() -> None:
    """What a first round has recorded is there already for the second one, and counts as recorded."""
    first = [result(10, left=6, created=4), result(20)]
    second = [result(10, already=4, created=6), result(20, already=20, created=0)]
    found = report(first, second)
    assert "| 30 | recorded by this import |" in found
    assert "were there already" not in found


def test_a_round_that_did_not_look_adds_no_rows() -> None:
    """What a first round has recorded counts once, also where the second one ended before it saw that."""
    first = [result(10, created=4, left=6)]
    found = report(first, [result(10, already=1, left=9)])
    assert "# Not all of 10 rows" in found
    assert "| 4 | recorded by this import |" in found
    assert "| 6 | left for a later run |" in found
    assert "were there already" not in found


def test_a_part_that_failed_in_a_later_round_keeps_its_numbers() -> None:
    """And is told all the same."""
    failed = {"error": {"message": "cancelled"}}
    found = report([result(10, left=6, created=4)], [failed], rows=10)
    assert "| 4 | recorded by this import |" in found
    assert "cancelled" in found


def test_remarks_are_told_once() -> None:
    """Each part has the same."""
    found = report([result(1, remarks=["No dates."]), result(1, remarks=["No dates."])])
    assert found.count("No dates.") == 1


def test_a_report_is_bounded() -> None:
    """However many reasons there are."""
    reasons = [{"rows": 1, "example": at, "path": "text", "title": "is " + "x" * at} for at in range(1, 1_000)]
    assert len(report([result(1_000, refused=999, reasons=reasons)])) < 20_000


def test_threads_with_several_customers_are_told_of() -> None:
    """As one number, with examples."""
    two = [
        result(9, other_customers={"threads": 2, "rows": [3, 8]}),
        result(9, other_customers={"threads": 1, "rows": [5]}),
    ]
    assert "In 3 conversations rows name other customers" in (found := report(two))
    assert "3, 8, 5" in found


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"check": {"rows": 1}},
        {"rounds": [{"parts": []}]},
        {"check": {"rows": 1}, "rounds": "odd"},
        {"check": {"md": "x"}, "rounds": [{"parts": [{"rows": 1}]}]},
        {"check": {"rows": "1"}, "rounds": [{"parts": [{"rows": 1}]}]},
        {"check": {"rows": 1}, "rounds": [{"parts": [7]}]},
        {"check": {"rows": 1}, "rounds": [{"part": [{"rows": 1}]}]},
        {"parts": [7]},
    ],
    ids=str,
)
def test_what_is_no_result_is_told(body: Any) -> None:
    """As every step does."""
    with pytest.raises(InvalidInput):
        main(body)


def test_another_round_follows_while_it_records_more() -> None:
    """And what failed alone is no reason for one."""
    again, failed = result(10, left=6, again=True), {"error": {"message": "no"}}
    assert main({"parts": [again, result(3)]})["finished"] is False
    assert main({"parts": [result(3), failed]}) == {"finished": True, "parts": [result(3), failed]}


def test_what_an_import_returns_is_reported(site: Site) -> None:
    """The report reads what the step writes: rows that are wrong, refused and left."""
    rows = history(50, threads=10)
    rows[3]["email"] = ""
    site.put([*rows, {**rows[4], "text": "something else"}])
    told = site.run(check=True)
    rounds = [[site.run(limit=20)], [site.run()]]
    found = report(*rounds, rows=told["rows"])
    assert "| 49 | recorded by this import |" in found
    assert "| 2 | refused |" in found
    assert "| 1 | email is missing" in found
    assert "refused-0000-" in found

"""A list is read whole, however many pages it has, and however large they are."""

import pytest

from f.kustomer.create_message import MESSAGE, main
from f.kustomer.shared import client, wire
from f.kustomer.shared.client import Run, start
from f.kustomer.shared.errors import OddAnswer, ServerFailed
from tests.conftest import Body
from tests.standin.kustomer import Fault, Kustomer


@pytest.fixture
def run(auth: Body) -> Run:
    """A run that may read."""
    return start(auth, MESSAGE)


def fill(kustomer: Kustomer, auth: Body, message: Body, number: int) -> list[str]:
    """Record so many messages in a conversation of their own, and return their ids."""
    place = {"conversation": "65a1b2c3d4e5f60718293a4b", "preview": "x" * 1_000, "importedAt": "2026-01-31T09:30:00Z"}
    return [main(auth, message | place | {"subject": str(each)})["data"]["id"] for each in range(number)]  # type: ignore[arg-type]


PATH = "/v1/conversations/65a1b2c3d4e5f60718293a4b/messages"


@pytest.mark.parametrize(("number", "pages"), [(1, 1), (99, 1), (100, 2), (101, 2), (230, 3)])
def test_every_resource_is_read_once(
    kustomer: Kustomer, auth: Body, message: Body, run: Run, number: int, pages: int
) -> None:
    """A hundred at a time; a last page that is full is followed by an empty one."""
    kustomer.org_limit = 10_000
    ids = fill(kustomer, auth, message, number)
    assert [each["id"] for each in run.list(PATH)] == ids
    assert run.requests == pages


def test_a_long_list_has_as_much_time_for_its_last_page_as_for_its_first(
    kustomer: Kustomer, auth: Body, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what is too long to be read in a run's time could never be read, however often it is tried."""
    kustomer.org_limit = 10_000
    ids = fill(kustomer, auth, message, 230)
    monkeypatch.setattr(client, "BUDGET_SECONDS", 0)
    assert [each["id"] for each in start(auth, MESSAGE).list(PATH)] == ids


@pytest.mark.parametrize("largest", [100_000, 30_000, 9_000, 4_000])
def test_a_page_that_is_too_large_is_asked_for_in_smaller_ones(
    kustomer: Kustomer, auth: Body, message: Body, run: Run, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    """What was read before is not read again, and nothing is left out."""
    ids = fill(kustomer, auth, message, 130)
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", largest)
    assert [each["id"] for each in run.list(PATH)] == ids


def test_a_single_resource_that_is_too_large_is_told(
    kustomer: Kustomer, auth: Body, message: Body, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no smaller page."""
    fill(kustomer, auth, message, 3)
    monkeypatch.setattr(wire, "MAX_ANSWER_BYTES", 1_000)
    with pytest.raises(OddAnswer, match="is larger than"):
        list(run.list(PATH))


def test_a_page_that_fails_is_no_end_of_the_list(kustomer: Kustomer, auth: Body, message: Body, run: Run) -> None:
    """Half a list would be taken for a whole one, and what is missing in it sent again."""
    fill(kustomer, auth, message, 130)
    pages = run.list(PATH)
    for _ in range(100):
        next(pages)
    kustomer.fault(*[Fault.answer(503, on="GET")] * 3)
    with pytest.raises(ServerFailed):
        list(pages)


def test_a_page_that_brings_nothing_new_ends_the_list(kustomer: Kustomer, auth: Body, message: Body, run: Run) -> None:
    """Some servers repeat their last page for ever."""
    ids = fill(kustomer, auth, message, 3)
    page = {"data": [{"id": each} for each in ids], "links": {"next": "/more"}}
    kustomer.fault(*[Fault.answer(200, page, on="GET", at=PATH) for _ in range(50)])
    assert [each["id"] for each in run.list(PATH)] == ids
    assert run.requests == 2


@pytest.mark.parametrize("item", [None, 7, "x", []], ids=repr)
def test_a_list_of_something_else_is_no_answer_of_kustomers(kustomer: Kustomer, run: Run, item: object) -> None:
    """A resource is an object."""
    kustomer.fault(Fault.answer(200, {"data": [item]}, on="GET", at=PATH))
    with pytest.raises(OddAnswer):
        list(run.list(PATH))

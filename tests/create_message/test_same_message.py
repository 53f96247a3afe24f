"""What is found under an externalId is the message, unless it plainly is somebody else's."""

import pytest

from f.kustomer.create_message import differences, rewritten
from f.kustomer.shared.errors import Conflict, OddAnswer
from tests.conftest import Body, Step
from tests.stand_ins.test_kustomer import create
from tests.standin.kustomer import Fault, Kustomer

ID = {"externalId": "m1", "sentAt": "2026-01-31T09:30:00Z"}
FILE = {"_id": "a" * 24, "name": "lamp.jpg", "contentType": "image/jpeg", "contentLength": 5}
CHANGES: Body = {
    "preview": "Quite another text",
    "subject": "Quite another subject",
    "sentAt": "2026-02-01T09:30:00Z",
    "attachments": [FILE],
}


@pytest.mark.parametrize("changed", [["preview"], ["subject"], ["sentAt"], ["preview", "sentAt"]], ids=str)
def test_another_customer_s_other_message_is_a_conflict(
    kustomer: Kustomer, run: Step, message: Body, changed: list[str]
) -> None:
    """Each that differs is named, and none is quoted."""
    run(message | ID)
    somebody = create(kustomer, "customers").json()["data"]["id"]
    found = run(message | ID | {"customer": somebody} | {name: CHANGES[name] for name in changed})
    error = found.failed
    assert (type(error), error.outcome, found.stored) == (Conflict, "not_sent", 0)
    assert f"another customer and another {' and another '.join(changed)}." in str(error)


@pytest.mark.parametrize("change", ["customer", *CHANGES])
def test_merged_customer_or_edited_text_alone_makes_no_other_message(
    kustomer: Kustomer, run: Step, message: Body, change: str
) -> None:
    """Nor does what is not given."""
    first = run(message | ID)
    somebody = create(kustomer, "customers").json()["data"]["id"]
    again = run(message | ID | {change: CHANGES.get(change, somebody)})
    assert (again.id, again.stored) == (first.id, 0)
    less = {name: value for name, value in message.items() if name not in ("customer", "conversation")}
    assert run(less | ID | CHANGES | {"sentAt": ID["sentAt"]}).id == first.id


@pytest.mark.parametrize("change", ["preview", "subject", "attachments"])
def test_id_that_is_used_again_at_another_time_is_a_conflict(run: Step, message: Body, change: str) -> None:
    """A sender's second message is not told as there already, which would lose it."""
    run(message | ID | {"attachments": [FILE | {"name": "other.jpg"}]})
    found = run(message | ID | {name: CHANGES[name] for name in (change, "sentAt")})
    assert (type(found.failed), found.failed.outcome, found.stored) == (Conflict, "not_sent", 0)
    assert "another sentAt" in str(found.failed)


@pytest.mark.parametrize(
    ("there", "given", "other"),
    [
        ({"preview": "a  b\r\n"}, {"preview": " a b"}, []),
        ({"preview": "a"}, {"preview": "b"}, ["preview"]),
        ({"preview": None}, {"preview": "b"}, []),
        ({}, {"preview": "b", "sentAt": "2026-01-31T09:30:00Z"}, []),
        ({"preview": "a", "sentAt": "2026-01-31T09:30:00Z"}, {}, []),
        ({"sentAt": "2026-01-31T09:30:00.123Z"}, {"sentAt": "2026-01-31T10:30:00.9+01:00"}, []),
        ({"sentAt": "2026-01-31T09:30:00Z"}, {"sentAt": "2026-01-31T09:30:01Z"}, ["sentAt"]),
        ({"sentAt": 5}, {"sentAt": "2026-01-31T09:30:01Z"}, []),
        ({"preview": ["a"]}, {"preview": "b"}, []),
        ({"subject": " Re:  a"}, {"subject": "Re: a"}, []),
        ({"subject": "a"}, {"subject": "b"}, ["subject"]),
        ({"sentAt": "soon"}, {"sentAt": "2026-01-31T09:30:00Z"}, []),
        ({"attachments": [FILE, FILE | {"name": "b"}]}, {"attachments": [{"name": "b"}, {"name": "lamp.jpg"}]}, []),
        ({"attachments": [FILE]}, {"attachments": [FILE | {"name": "b"}]}, ["attachments"]),
        ({"attachments": []}, {"attachments": [FILE]}, ["attachments"]),
        ({"attachments": [FILE]}, {}, []),
        ({}, {"attachments": [FILE]}, []),
        ({"attachments": ["a" * 24]}, {"attachments": [FILE]}, []),
        ({"attachments": FILE}, {"attachments": [FILE]}, []),
    ],
)
def test_what_is_compared_is_what_was_written_and_attached_and_when(there: Body, given: Body, other: list[str]) -> None:
    """Whatever the channel or Kustomer makes of blanks and of fractions of a second."""
    assert rewritten({"attributes": there}, given) == other


@pytest.mark.parametrize("found", [{}, {"attributes": None}, {"relationships": {"customer": {"data": []}}}])
def test_answer_that_tells_nothing_contradicts_nothing(found: Body) -> None:
    """What Kustomer leaves out is no other value."""
    assert differences(found, {"externalId": "m1", "customer": "a" * 24, "preview": "x", **ID}) == []


def test_answer_about_another_message_is_not_taken_for_this_one(kustomer: Kustomer, run: Step, message: Body) -> None:
    """A post is answered with somebody else's record, as where a connection carries one answer too many."""
    other = {"id": "d" * 24, "type": "message", "attributes": {"externalId": "<other@x.example>"}}
    kustomer.fault(Fault.answer(201, {"data": other}))
    error = run(message | ID).failed
    assert (type(error), error.outcome, error.retryable) == (OddAnswer, "unknown", True)

"""Whatever fails, the step says truly what became of the message and what to do, and a second run mends it."""

import copy
import pickle
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from f.kustomer import record_message
from f.kustomer.record_message import main
from f.kustomer.shared import wire
from f.kustomer.shared.errors import AccessDenied, Conflict, FileNotRead, KustomerError, Rejected
from tests.conftest import spilled
from tests.stand_ins.test_kustomer import create
from tests.standin.kustomer import UPLOAD_PATH, Fault, Kustomer

Body = dict[str, Any]

CONTENT = b"what is in the file"

# The requests of a first message, in their order: method and path.
REQUESTS: dict[str, tuple[str, str]] = {
    "look-up of the message": ("GET", "/v1/messages"),
    "look-up of the customer": ("GET", "/v1/customers"),
    "customer": ("POST", "/v1/customers"),
    "look-up of the conversation": ("GET", "/v1/conversations"),
    "conversation": ("POST", "/v1/conversations"),
    "attachment": ("POST", "/v1/attachments"),
    "upload": ("POST", UPLOAD_PATH),
    "message": ("POST", "/v1/messages"),
}
MakeFault = Callable[..., Fault]
# What can happen to any request.
FAULTS: dict[str, MakeFault] = {
    "400": partial(Fault.answer, 400, {"errors": [{"code": "badparam", "title": "Wrong type"}]}),
    "401": partial(Fault.answer, 401, {"errors": [{"code": "unauthorized", "message": "Auth token has expired"}]}),
    "403": partial(Fault.answer, 403, {"errors": [{"code": "forbidden", "message": "Missing role"}]}),
    "404 page": partial(Fault.answer, 404, b"<h1>Not Found</h1>"),
    "409": partial(Fault.answer, 409, {"errors": [{"code": "conflict", "title": "Conflict"}]}),
    "429 for an hour": partial(Fault.answer, 429, headers={"Retry-After": "3600"}),
    "500": partial(Fault.answer, 500, {"errors": [{"code": "oops"}]}),
    "503": partial(Fault.answer, 503, b"<h1>Busy</h1>"),
    "redirect": partial(Fault.answer, 302, headers={"Location": "https://elsewhere.example/"}),
    "reset": Fault.reset,
    "close": Fault.close,
    "cut": Fault.cut,
    "hang": Fault.hang,
}
# What doesn't pass by itself.
REFUSED = {"400", "401", "403", "404 page", "409", "redirect"}
# What can happen to a request that is acted upon all the same.
ACTED_UPON = {f"{name}, stored": partial(FAULTS[name], store=True) for name in ("503", "reset", "close", "cut", "hang")}
OFTEN = 100  # more than all tries of a run

TABLE = [
    (request, name, {"on": method, "at": path}, fault)
    for request, (method, path) in REQUESTS.items()
    for name, fault in (FAULTS | (ACTED_UPON if method == "POST" else {})).items()
] + [(name, "late", {"at": path}, Fault.late_store) for name, (method, path) in REQUESTS.items() if method == "POST"]
every_fault = pytest.mark.parametrize(
    ("request_", "name", "where", "fault"),
    [pytest.param(*row, id=", ".join(row[:2])) for row in TABLE],
)


@pytest.fixture(autouse=True)
def soon(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing answers, a test needn't wait for long."""
    if "hang" in request.node.name:
        monkeypatch.setattr(wire, "READ_SECONDS", 0.04)


class Organisation(Kustomer):
    """A stand-in whose faults pass."""

    def lift(self) -> None:
        """Forget the faults that have not been met, and let go of what hangs."""
        self._faults.clear()
        self.release()


@pytest.fixture(scope="module")
def server() -> Iterator[Organisation]:
    """One for all tests here, where a message that comes too late for its externalId is refused."""
    running = Organisation(unique_external_ids=True)
    with running:
        yield running


@pytest.fixture
def kustomer(server: Organisation) -> Iterator[Organisation]:
    """It has forgotten the test before, and what hung there."""
    server.clear()
    yield server
    server.lift()


@pytest.fixture
def email() -> Body:
    """The first e-mail of a new customer, with a file."""
    return {
        "channel": "email",
        "messageId": "<CAF1044@mail.acme.example>",
        "email": "grace@example.com",
        "name": "Grace Hopper-Murray",
        "subject": "About order 1042 of Monday",
        "text": "Hello, where is my order 1042? My card is 4111-1111.",
        "meta": {"to": ["help-desk@acme.example"]},
        "files": [{"name": "grace-invoice.txt", "content": "d2hhdCBpcyBpbiB0aGUgZmlsZQ=="}],
    }


def texts(event: Body) -> list[str]:
    """What nobody else may read of it."""
    own = [event[name] for name in ("email", "name", "subject", "text")]
    return [*own, "help-desk@acme.example", "grace-invoice.txt"]


def failure(auth: Body, event: Body) -> KustomerError | None:
    """The error of a run, or None where it succeeds."""
    try:
        main(auth, event)  # type: ignore[arg-type]
    except KustomerError as error:
        return error
    return None


def must_fail(auth: Body, event: Body) -> KustomerError:
    """The error of a run that has one."""
    error = failure(auth, event)
    assert error is not None, "the step succeeded"
    return error


def assert_recorded(auth: Body, event: Body, kustomer: Kustomer) -> None:
    """One message, in the conversation of the thread, with its customer and its file, is what the step returns."""
    found = main(auth, event)  # type: ignore[arg-type]
    (message,) = kustomer.messages
    assert found["message"]["id"] == message["id"]
    (customer,) = kustomer.customers
    assert message["relationships"]["customer"]["data"]["id"] == found["customer"]["id"] == customer["id"]
    conversations = {each["id"]: each["attributes"]["externalId"] for each in kustomer.conversations}
    assert conversations == {found["conversation"]["id"]: event["messageId"]}
    assert message["relationships"]["conversation"]["data"]["id"] == found["conversation"]["id"]
    (attachment,) = message["attributes"]["attachments"]
    assert found["attachments"] == [attachment]
    assert (attachment["name"], kustomer.files[attachment["_id"]].head) == ("grace-invoice.txt", CONTENT)


def assert_true(error: KustomerError, request: str, kustomer: Kustomer, auth: Body, event: Body) -> None:
    """What an error says is so, can be copied, and keeps the key and the message's words to itself."""
    said = str(error)
    assert len(kustomer.messages) <= (1 if request == "message" and error.outcome == "unknown" else 0)
    if "message" not in request:
        assert "This run did not send the message." in said
    for name, made in ("customer", kustomer.customers), ("conversation", kustomer.conversations):
        if request in list(REQUESTS)[list(REQUESTS).index(name) + 1 :]:
            (there,) = made
            assert f"{name} {there['id']}" in said
            assert not re.search(f"created (nothing|no {name})", said)
            assert "which running it again finds" in said
    assert ("It was files[0] that failed." in said) is (request in ("attachment", "upload"))
    assert str(pickle.loads(pickle.dumps(error))) == str(copy.copy(error)) == said  # noqa: S301 - our own
    assert spilled(error, auth["apiKey"], *texts(event)) == []


# Faults


def outcome(request: str, fault: str) -> str:
    """What becomes of the message when a request's fault lasts."""
    if request != "message":
        return "not_sent"
    return "rejected" if fault.startswith("4") else "unknown"


@every_fault
def test_request_that_fails_once(
    kustomer: Organisation, auth: Body, email: Body, request_: str, name: str, where: Body, fault: MakeFault
) -> None:
    """What passes is outlasted, in this run or the next one; what does not is told."""
    kustomer.fault(fault(**where))
    error = failure(auth, email)
    if error:
        assert name in REFUSED | {"429 for an hour"} or error.retryable
        assert_true(error, request_, kustomer, auth, email)
        assert error.outcome == outcome(request_, name)
    assert_recorded(auth, email, kustomer)


@every_fault
def test_request_that_fails_for_ever(
    kustomer: Organisation, auth: Body, email: Body, request_: str, name: str, where: Body, fault: MakeFault
) -> None:
    """The step ends and tells what became of the message; once the fault is gone, a second run mends it."""
    kustomer.fault(*[fault(**where)] * OFTEN)
    error = failure(auth, email)
    kustomer.lift()
    if error:
        assert_true(error, request_, kustomer, auth, email)
        assert error.outcome == outcome(request_, name)
        assert error.retryable or name in REFUSED
    assert_recorded(auth, email, kustomer)


class Died(Exception):
    """The worker is gone."""


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("last", range(1, len(REQUESTS) + 1))
def test_job_that_died_is_run_again_without_harm(
    kustomer: Organisation, auth: Body, email: Body, monkeypatch: pytest.MonkeyPatch, last: int, after: bool
) -> None:
    """Before or after whichever request it ended, the second run records the message once, with its file."""
    sent = 0

    def dying(*request: Any) -> Any:
        nonlocal sent
        sent += 1
        if sent == last and not after:
            raise Died
        reply = exchange(*request)
        if sent == last:
            reply.settle(False)
            raise Died
        return reply

    exchange = wire.exchange
    monkeypatch.setattr("f.kustomer.shared.client.exchange", dying)
    with pytest.raises(Died):
        main(auth, email)  # type: ignore[arg-type]
    monkeypatch.undo()
    assert sent == last
    assert_recorded(auth, email, kustomer)


@pytest.mark.parametrize(("on", "path"), [where for where in REQUESTS.values() if where[1] != UPLOAD_PATH])
def test_nothing_that_was_written_is_in_an_error_or_the_log(
    kustomer: Organisation, auth: Body, email: Body, capsys: pytest.CaptureFixture[str], path: str, on: str
) -> None:
    """Not even where Kustomer throws it all back, at whichever request."""
    said = " / ".join([auth["apiKey"], *texts(email)])
    kustomer.fault(Fault.answer(400, {"errors": [{"title": said, "detail": said}]}, at=path, on=on))
    error = must_fail(auth, email)
    assert spilled(error, auth["apiKey"], *texts(email)) == []
    assert "[...]" in str(error)
    log = capsys.readouterr().out
    assert [each for each in texts(email) if each in log] == []


def test_key_that_may_not_look_for_messages_is_told_to_look_at_the_timeline(
    kustomer: Organisation, auth: Body, email: Body
) -> None:
    """Then nobody but a person can tell whether the message is there."""
    roles = [f"org.permission.{name}" for name in ("customer.create", "customer.read", "message.create")]
    key = kustomer.key(*roles, "org.permission.conversation.create", "org.permission.conversation.read")
    kustomer.fault(Fault.close(at="/v1/messages", store=True))
    error = must_fail(auth | {"apiKey": key}, email)
    assert (error.outcome, error.retryable, len(kustomer.messages)) == ("unknown", False, 1)
    assert "Look in Kustomer before you run the step again" in str(error)
    assert [seen.method for seen in kustomer.requests if "messages" in seen.path] == ["GET", "POST"]


def test_key_that_may_not_look_for_customers_is_told_what_it_needs(
    kustomer: Organisation, auth: Body, email: Body
) -> None:
    """And that nothing was made of the message."""
    error = must_fail(auth | {"apiKey": kustomer.key("org.permission.message")}, email)
    assert isinstance(error, AccessDenied)
    assert "org.permission.customer.read" in str(error)
    assert "This run did not send the message." in str(error)
    assert "So far" not in str(error)


# Files


def test_file_that_fails_is_told_by_its_place(kustomer: Organisation, auth: Body, email: Body) -> None:
    """Counted as it was given; the others are left alone."""
    files = ["", {"name": "only"}, *email["files"], {"s3": "not/there.pdf"}, *email["files"]]
    error = must_fail(auth, email | {"files": files})
    assert isinstance(error, FileNotRead)
    assert [each["path"] for each in error.errors] == ["files[3]"]
    assert "It was files[3] that failed." in str(error)
    sent = len(kustomer.requests) + len(kustomer.upload_requests)
    assert (error.outcome, error.attempts) == ("not_sent", sent)
    assert kustomer.messages == []
    assert_recorded(auth, email, kustomer)


def test_of_several_failures_the_one_that_needs_somebody_is_told(
    kustomer: Organisation, auth: Body, email: Body
) -> None:
    """As a second run alone would cure the others only."""
    passing = Fault.answer(429, headers={"Retry-After": "3600"}, at="/v1/attachments")
    kustomer.fault(passing, *[Fault.answer(400, {"errors": [{"title": "No"}]}, at="/v1/attachments")] * 3)
    error = must_fail(auth, email | {"files": email["files"] * 4})
    assert (type(error), error.retryable) == (Rejected, False)


def test_no_more_files_are_begun_once_one_has_failed(kustomer: Organisation, auth: Body, email: Body) -> None:
    """Hundreds of files are not uploaded for a message that will not be recorded."""
    kustomer.fault(Fault.answer(400, at="/v1/attachments"))
    must_fail(auth, email | {"files": email["files"] * 200})
    assert len(kustomer.attachments) < 100


@pytest.mark.parametrize(("name", "by"), [("message", "externalId"), ("customer", "email")])
def test_look_up_that_fails_tells_what_was_looked_for(
    kustomer: Organisation, auth: Body, email: Body, name: str, by: str
) -> None:
    """A job looks for three things, two of them by an externalId."""
    kustomer.fault(Fault.answer(400, on="GET", at=f"/v1/{name}s"))
    assert f"400 Bad Request on looking for the {name} by {by}." in str(must_fail(auth, email))


def test_second_try_says_what_the_first_may_have_done(
    kustomer: Organisation, auth: Body, email: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one's post was stored, though Kustomer answered 503 and no look came through."""
    no_look = Fault.answer(503, on="GET", at="/v1/messages")
    monkeypatch.setattr(time, "sleep", lambda _: kustomer.fault(no_look))
    kustomer.fault(Fault.answer(503, on="POST", at="/v1/messages", store=True))
    assert must_fail(auth, email).outcome == "unknown"
    kustomer.fault(no_look)
    error = must_fail(auth, email)
    assert (error.outcome, len(kustomer.messages)) == ("not_sent", 1)
    assert "This run did not send the message. An earlier run may have recorded it." in str(error)


@pytest.mark.parametrize("at", ["/v1/customers", "/v1/conversations", "/v1/attachments"])
def test_failure_before_the_message_says_what_an_earlier_run_may_have_done(
    kustomer: Organisation, auth: Body, email: Body, at: str
) -> None:
    """Whatever it is that failed."""
    kustomer.fault(Fault.answer(400, at=at))
    assert "This run did not send the message. An earlier run may have recorded it." in str(must_fail(auth, email))


# Somebody else's message

OTHER: Body = {
    "email": "ada@example.com",
    "name": "Ada",
    "text": "Quite another text",
    "sentAt": "2026-01-31T09:30:00Z",
}
SENT = {"sentAt": "2026-01-02T03:04:05.678Z"}


@pytest.mark.parametrize(
    ("changed", "fields"),
    [
        (["email", "text"], ["customer", "preview"]),
        (["email", "sentAt"], ["customer", "sentAt"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("known", [False, True], ids=["nobody knows them", "known"])
def test_somebody_else_s_message_is_a_conflict(
    kustomer: Organisation, auth: Body, email: Body, changed: list[str], fields: list[str], known: bool
) -> None:
    """Another customer and another text, or another time: neither is lost in silence, and nothing is made."""
    main(auth, email | SENT)  # type: ignore[arg-type]
    if known:
        main(auth, email | OTHER | {"messageId": "2"})  # type: ignore[arg-type]
    before = len(kustomer.requests)
    error = must_fail(auth, email | SENT | {name: OTHER[name] for name in changed})
    assert (type(error), error.outcome, error.retryable) == (Conflict, "not_sent", False)
    assert f"another {' and another '.join(fields)}" in str(error)
    assert "Give each message a messageId of its own" in str(error)
    assert [seen.method for seen in kustomer.requests[before:]] == ["GET", "GET"]
    assert len(kustomer.messages) == (2 if known else 1)


@pytest.mark.parametrize("name", ["subject", "files"])
def test_somebody_else_s_message_without_a_text_is_a_conflict(
    kustomer: Organisation, auth: Body, email: Body, name: str
) -> None:
    """A photo in a chat whose ids count anew is not lost, and neither is a mail with nothing but a subject."""
    bare = {field: email[field] for field in ("channel", "messageId", "email", name)}
    main(auth, bare)  # type: ignore[arg-type]
    other = {"subject": "Quite another one", "files": ["https://files.acme.example/photo.jpg"]}[name]
    error = must_fail(auth, bare | {"email": OTHER["email"], name: other})
    assert (type(error), error.outcome, len(kustomer.messages)) == (Conflict, "not_sent", 1)
    assert f"another customer and another {'attachments' if name == 'files' else name}" in str(error)


def test_message_that_is_delivered_again_with_other_files_is_there_and_the_log_says_so(
    kustomer: Organisation, auth: Body, email: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is added to what is recorded, and the same files are worth no word."""
    first = main(auth, email)  # type: ignore[arg-type]
    assert main(auth, email)["message"]["created"] is False  # type: ignore[arg-type]
    assert "other files" not in capsys.readouterr().out
    more = [*email["files"], "https://files.acme.example/photo.jpg"]
    again = main(auth, email | {"files": more})  # type: ignore[arg-type]
    assert (again["message"]["id"], again["attachments"]) == (first["message"]["id"], first["attachments"])
    assert "the message has other files than those given, of which none is added" in capsys.readouterr().out


def test_somebody_else_s_message_that_comes_in_between_is_a_conflict(
    kustomer: Organisation, auth: Body, email: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there when the step looked first, and Kustomer refuses this one."""

    def meanwhile(*_: object) -> list[Body]:
        other = {"channel": "email", "direction": "in", "app": "windmill", "customer": kustomer.customer}
        create(kustomer, "messages", **other, externalId=email["messageId"], preview="Quite another text")
        return []

    monkeypatch.setattr(record_message, "_attach", meanwhile)
    error = must_fail(auth, email)
    assert (type(error), error.outcome) == (Conflict, "rejected")
    assert "another customer and another preview" in str(error)


@pytest.mark.parametrize("changed", [["email"], ["text"], ["sentAt"], ["name"]], ids=str)
def test_message_that_was_edited_or_whose_customer_was_merged_is_there(
    kustomer: Organisation, auth: Body, email: Body, changed: list[str]
) -> None:
    """Only one of the two is another one; the customer is looked up only where the rest differs."""
    first = main(auth, email | SENT)  # type: ignore[arg-type]
    before = len(kustomer.requests)
    again = main(auth, email | SENT | {name: OTHER[name] for name in changed})  # type: ignore[arg-type]
    assert again["message"] == {"id": first["message"]["id"], "created": False}
    asked = [seen.path.split("/")[2] for seen in kustomer.requests[before:]]
    assert asked == (["messages"] if changed in (["email"], ["name"]) else ["messages", "customers"])


@pytest.mark.parametrize(
    "changed",
    [{"text": OTHER["text"]}, {"subject": "Another"}, {"files": ["https://files.acme.example/photo.jpg"]}],
    ids=str,
)
def test_message_id_that_its_sender_uses_again_is_a_conflict(
    kustomer: Organisation, auth: Body, email: Body, changed: Body
) -> None:
    """A week later, for something else: the second message is not told as there already, and so is not lost."""
    main(auth, email | SENT)  # type: ignore[arg-type]
    error = must_fail(auth, email | SENT | {"sentAt": "2026-01-09T03:04:05Z"} | changed)
    assert (type(error), error.outcome, len(kustomer.messages)) == (Conflict, "not_sent", 1)
    assert "another sentAt" in str(error)
    assert "Give each message a messageId of its own" in str(error)


@pytest.mark.parametrize("sent", ["2026-01-02T03:04:05Z", "2026-01-02T04:04:05.678+01:00", "2026-01-02t03:04:05.6789z"])
def test_same_moment_in_another_spelling_is_the_same(
    kustomer: Organisation, auth: Body, email: Body, sent: str
) -> None:
    """And so is a text with other blanks."""
    main(auth, email | SENT)  # type: ignore[arg-type]
    before = len(kustomer.requests)
    main(auth, email | {"sentAt": sent, "text": f" {email['text']}\r\n"})  # type: ignore[arg-type]
    assert len(kustomer.requests) - before == 1


def test_ids_that_count_anew_in_each_chat_are_a_conflict_in_another_thread(
    kustomer: Organisation, auth: Body, email: Body
) -> None:
    """The same customer writes in two chats, and the second one's message is another one."""
    chat = email | {"messageId": "1", "threadId": "chat A"}
    main(auth, chat)  # type: ignore[arg-type]
    error = must_fail(auth, chat | {"threadId": "chat B", "text": "Another one"})
    assert isinstance(error, Conflict)
    assert "another conversation and another preview" in str(error)
    edited = main(auth, chat | {"text": "Another one"})  # type: ignore[arg-type]
    assert edited["message"]["created"] is False


@pytest.mark.parametrize("other", [{"channel": "chat"}, {"direction": "out"}, {"app": "other"}], ids=str)
def test_message_of_another_channel_direction_or_app_is_a_conflict(
    kustomer: Organisation, auth: Body, email: Body, other: Body
) -> None:
    """It plainly is another one."""
    main(auth, email)  # type: ignore[arg-type]
    error = must_fail(auth, email | other)
    assert (type(error), error.outcome, len(kustomer.messages)) == (Conflict, "not_sent", 1)
    assert "externalId is already that of message" in str(error)

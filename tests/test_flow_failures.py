"""Whatever fails, the flow says truly what became of the message and what to do, and a second run mends it."""

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from f.kustomer import wire
from tests import windmill_cli
from tests.standin import flow as standin
from tests.standin import worker
from tests.standin.kustomer import UPLOAD_PATH, Fault, Kustomer
from tests.test_flow import FLOW, FOLDER, failure_module

Body = dict[str, Any]

CONTENT = b"what is in the file"
EXTRA = {"step", "kind", "cause", "outcome", "retryable", "retry_after", "status", "errors"}

# The requests of the flow, in their order: method, path, and the id of the step.
REQUESTS: dict[str, tuple[str, str, str]] = {
    "look-up of the customer": ("GET", "/v1/customers", "customer"),
    "customer": ("POST", "/v1/customers", "customer"),
    "look-up of the conversation": ("GET", "/v1/conversations", "conversation"),
    "conversation": ("POST", "/v1/conversations", "conversation"),
    "attachment": ("POST", "/v1/attachments", "upload"),
    "upload": ("POST", UPLOAD_PATH, "upload"),
    "look-up of the message": ("GET", "/v1/messages", "message"),
    "message": ("POST", "/v1/messages", "message"),
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
OFTEN = 100  # more than all tries of a flow
# With one retry instead of three, to be quick.
IMPATIENT: Body = json.loads(json.dumps(FLOW).replace('"attempts": 3', '"attempts": 1'))

TABLE = [
    (request, name, {"on": method, "at": path}, fault)
    for request, (method, path, _) in REQUESTS.items()
    for name, fault in (FAULTS | (ACTED_UPON if method == "POST" else {})).items()
] + [(name, "late", {"at": path}, Fault.late_store) for name, (method, path, _) in REQUESTS.items() if method == "POST"]
every_fault = pytest.mark.parametrize(
    ("request_", "name", "where", "fault"),
    [pytest.param(*row, id=", ".join(row[:2])) for row in TABLE],
)


@pytest.fixture(autouse=True)
def node() -> None:
    """Every flow has expressions."""
    windmill_cli.need_node()


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
def email(auth: Body) -> Body:
    """The first e-mail of a new customer, with a file."""
    return {
        "auth": auth,
        "channel": "email",
        "messageId": "<CAF1044@mail.acme.example>",
        "email": "grace@example.com",
        "name": "Grace Hopper-Murray",
        "subject": "About order 1042 of Monday",
        "text": "Hello, where is my order 1042? My card is 4111-1111.",
        "files": [{"name": "invoice.txt", "content": "d2hhdCBpcyBpbiB0aGUgZmlsZQ=="}],
    }


def run(
    inputs: Body, run_job: standin.RunJob = standin.run_in_process, flow: Body = FLOW, **options: Any
) -> standin.FlowRun:
    """Run the flow, each script in this process."""
    return standin.run(flow, inputs, run_job, folder=FOLDER, **options)


def error_of(ran: standin.FlowRun) -> Body:
    """The error of a failed flow, also where it is one of a loop's results; its form is checked on the way."""
    assert not ran.ok
    results = ran.result if isinstance(ran.result, list) else [ran.result]
    (error,) = [each["error"] for each in results if "error" in each]
    assert (error["name"], set(error["extra"])) == ("RecordingFailed", EXTRA)
    assert sentences(error["message"]) == 2, error["message"]
    return dict(error)


def sentences(text: str) -> int:
    """How many there are; a dot within a name ends none."""
    assert text.endswith(".")
    return len(re.findall(r"[.!?](?=\s|$)", text))


def assert_recorded(ran: standin.FlowRun, kustomer: Kustomer) -> None:
    """One message, in the conversation of the thread, with its customer and its file, is what the flow returns."""
    assert ran.ok, ran.result
    (message,) = kustomer.messages
    assert ran.result["data"]["id"] == message["id"]
    (customer,) = kustomer.customers
    assert message["relationships"]["customer"]["data"]["id"] == customer["id"]
    conversations = {each["id"]: each["attributes"]["externalId"] for each in kustomer.conversations}
    assert conversations == {message["relationships"]["conversation"]["data"]["id"]: "<CAF1044@mail.acme.example>"}
    (attachment,) = message["attributes"]["attachments"]
    assert (attachment["name"], kustomer.files[attachment["_id"]].head) == ("invoice.txt", CONTENT)


def assert_true(error: Body, kustomer: Kustomer, inputs: Body) -> None:
    """What the error says is so, and it keeps the key and the message's words to itself."""
    extra, said = error["extra"], error["message"]
    assert len(kustomer.messages) <= (1 if extra["outcome"] == "unknown" else 0)
    assert said.startswith("It is unknown whether" if extra["outcome"] == "unknown" else "This run has not recorded")
    assert f"as the step {extra['step']} failed with {extra['kind']}. " in said
    assert ("look for the message on the timeline" in said) is (
        extra["outcome"] == "unknown" and not extra["retryable"]
    )
    assert ("with the same messageId" in said) is extra["retryable"]
    shown = json.dumps(error, ensure_ascii=False)
    assert [name for name in ("subject", "text", "name") if inputs[name] in shown] == []
    assert inputs["auth"]["apiKey"] not in shown


# Faults


def outcome(request: str, fault: str) -> str:
    """What becomes of a message when a fault of one of the flow's requests lasts."""
    if request != "message":
        return "not_sent"
    return "rejected" if fault.startswith("4") else "unknown"


@every_fault
def test_request_that_fails_once(
    kustomer: Organisation, email: Body, request_: str, name: str, where: Body, fault: MakeFault
) -> None:
    """What passes is outlasted; what does not is told, and mended by a second run."""
    kustomer.fault(fault(**where))
    ran = run(email)
    if not ran.ok:
        assert name in REFUSED
        error = error_of(ran)
        assert_true(error, kustomer, email)
        assert (error["extra"]["step"], error["extra"]["outcome"]) == (REQUESTS[request_][2], outcome(request_, name))
        assert error["extra"]["retryable"] is False
        ran = run(email)
    assert_recorded(ran, kustomer)


@every_fault
def test_request_that_fails_for_ever(
    kustomer: Organisation, email: Body, request_: str, name: str, where: Body, fault: MakeFault
) -> None:
    """The flow ends and tells what became of the message; once the fault is gone, a second run mends it."""
    kustomer.fault(*[fault(**where)] * OFTEN)
    ran = run(email, flow=IMPATIENT)
    kustomer.lift()
    if not ran.ok:
        error = error_of(ran)
        assert_true(error, kustomer, email)
        assert (error["extra"]["step"], error["extra"]["outcome"]) == (REQUESTS[request_][2], outcome(request_, name))
        assert len(ran.waits) == (1 if error["extra"]["retryable"] else 0)
        ran = run(email)
    assert_recorded(ran, kustomer)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/customers", ["name", "email"]),
        ("/v1/conversations", ["subject"]),
        ("/v1/attachments", []),
        ("/v1/messages", ["subject", "text"]),
    ],
)
def test_neither_key_nor_words_are_in_the_failure(
    kustomer: Organisation, email: Body, path: str, words: list[str]
) -> None:
    """Not even where Kustomer throws back what it was sent."""
    said = " / ".join([email["auth"]["apiKey"], *(email[word] for word in words)])
    kustomer.fault(Fault.answer(400, {"errors": [{"title": said, "detail": said}]}, at=path))
    ran = run(email)
    assert_true(error_of(ran), kustomer, email)
    shown = json.dumps(ran.result, ensure_ascii=False)
    assert [word for word in words if email[word] in shown] == []
    assert "[...]" in shown


def test_key_that_may_not_look_for_messages_is_told_to_look_at_the_timeline(
    kustomer: Organisation, email: Body
) -> None:
    """Then nobody but a person can tell whether the message is there."""
    roles = [f"org.permission.{name}" for name in ("customer.create", "customer.read", "message.create")]
    key = kustomer.key(*roles, "org.permission.conversation.create", "org.permission.conversation.read")
    kustomer.fault(Fault.close(at="/v1/messages", store=True))
    inputs = email | {"auth": email["auth"] | {"apiKey": key}}
    error = error_of(run(inputs))
    assert_true(error, kustomer, inputs)
    assert (error["extra"]["outcome"], error["extra"]["retryable"], len(kustomer.messages)) == ("unknown", False, 1)
    assert "unless the key has the role org.permission.message.read" in error["message"]


def test_message_id_of_another_message_is_not_recorded(kustomer: Organisation, email: Body) -> None:
    """The failure says that something else has it."""
    assert run(email).ok
    error = error_of(run(email | {"threadId": "another thread"}))
    assert (error["extra"]["kind"], error["extra"]["outcome"]) == ("Conflict", "not_sent")
    assert "externalId is already that of message" in error["extra"]["cause"]
    assert "with the same messageId" not in error["message"]
    assert len(kustomer.messages) == 1


# Files


@pytest.mark.parametrize("old_worker", [False, True], ids=["new worker", "old worker"])
def test_file_that_fails_is_told(kustomer: Organisation, email: Body, old_worker: bool) -> None:
    """A worker of before August 2025 runs the failure module once more, at the loop; a later one gives the list."""
    files = [*email["files"], "http://files.acme.example/invoice.pdf", *email["files"]]
    ran = run(email | {"files": files}, old_worker=old_worker)
    assert [each.step for each in ran.jobs].count("failure") == (2 if old_worker else 1)
    assert isinstance(ran.result, dict if old_worker else list)
    error = error_of(ran)
    assert_true(error, kustomer, email)
    assert error["extra"]["step"] == "upload"
    assert error["extra"]["cause"].startswith("This run sent nothing. To correct: body.externalUrl must be an address")
    assert [each["path"] for each in error["extra"]["errors"]] == ["body.externalUrl"]
    assert_recorded(run(email, old_worker=old_worker), kustomer)


def test_of_several_failures_the_one_that_needs_somebody_is_told(kustomer: Organisation, email: Body) -> None:
    """As a second run alone would cure the others only."""
    kustomer.fault(*[Fault.answer(503, at=UPLOAD_PATH)] * OFTEN)
    files = [*email["files"], "http://files.acme.example/invoice.pdf", *email["files"]]
    error = error_of(run(email | {"files": files}, old_worker=True))
    assert (error["extra"]["kind"], error["extra"]["retryable"]) == ("InvalidInput", False)


# Workers that say less


@pytest.mark.parametrize("step", ["customer", "conversation", "upload", "message"])
def test_killed_worker_is_told(kustomer: Organisation, email: Body, step: str) -> None:
    """It leaves no result, so that nobody knows how far it came."""

    def run_job(script: standin.Script, args: Body, env: dict[str, str]) -> worker.Job:
        job = standin.run_in_process(script, args, env)
        if env["WM_FLOW_STEP_ID"] != step:
            return job
        return worker.Job(False, None, worker.execution_error(137, ""), "", 137, 0)

    error = error_of(run(email, run_job))
    assert (error["extra"]["kind"], error["extra"]["outcome"]) == ("ExecutionErr", "unknown")
    assert error["message"].startswith("It is unknown whether this run has recorded the message, as the flow failed ")
    assert "Read cause, and look for the message on the timeline" in error["message"]
    assert_recorded(run(email), kustomer)


@pytest.mark.parametrize("path", ["/v1/customers", "/v1/messages"])
def test_dedicated_worker_is_told(kustomer: Organisation, email: Body, path: str) -> None:
    """Its errors have a name and a text, and neither step nor extra."""

    def run_job(script: standin.Script, args: Body, env: dict[str, str]) -> worker.Job:
        job = standin.run_in_process(script, args, env)
        if job.error is None or env["WM_FLOW_STEP_ID"] == "failure":
            return job
        less = {name: job.error[name] for name in ("name", "message", "stack")}
        return worker.Job(False, None, less, "", None, 0)

    kustomer.fault(*[Fault.answer(503, on="*", at=path)] * OFTEN)
    ran = run(email, run_job)
    kustomer.lift()
    error = error_of(ran)
    assert (error["extra"]["kind"], error["extra"]["outcome"], ran.waits) == ("ServerFailed", "unknown", [])
    assert error["extra"]["cause"].startswith("503 Service Unavailable")
    assert_recorded(run(email), kustomer)


# The failure module by itself


def raised(failed: Any) -> Exception:
    """What it raises, which is always the same."""
    module = failure_module()
    with pytest.raises(module.RecordingFailed) as caught:
        module.main(failed)
    error: Exception = caught.value
    assert sentences(str(error)) == 2
    assert set(vars(error)) == EXTRA
    return error


@pytest.mark.parametrize(
    "failed",
    [
        None,
        "error",
        5,
        [],
        {},
        [None, {}, "error"],
        {"error": None},
        {"error": "no"},
        {"error": {}},
        {"error": {"extra": None}},
        {"error": {"extra": "no"}},
        {"error": {"name": "Many words. In sentences.", "message": ["no"], "step_id": {"a": 1}}},
        {
            "error": {
                "name": ["Rejected"],
                "extra": {"outcome": ["rejected"], "retry_after": "soon", "errors": "no", "status": "no"},
            }
        },
        {"error": {"name": "RecordingFailed", "extra": {"kind": {}, "step": []}}},
    ],
)
def test_odd_failure_is_unknown(failed: Any) -> None:
    """What says nothing of the message may have recorded it."""
    error = raised(failed)
    assert str(error).startswith("It is unknown whether this run has recorded the message, as the flow failed with ")
    assert "Read cause, and look" in str(error) or "Correct what cause names, and look" in str(error)
    assert {
        name: vars(error)[name] for name in ("step", "outcome", "retryable", "retry_after", "status", "errors")
    } == {
        "step": None,
        "outcome": "unknown",
        "retryable": False,
        "retry_after": None,
        "status": None,
        "errors": [],
    }


NAMES = ["error", "extra", "name", "message", "step_id", *sorted(EXTRA)]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
)


@settings(max_examples=100, deadline=None)
@given(failed=ANYTHING | st.fixed_dictionaries({"error": st.fixed_dictionaries({"extra": ANYTHING})}))
def test_failure_module_never_fails_in_another_way(failed: Any) -> None:
    """Whatever the failed step left, in whatever shape, its two sentences come."""
    raised(failed)


def test_longest_wait_is_told() -> None:
    """Of several parts that only have to wait."""
    parts = [
        {"error": {"name": "RateLimited", "step_id": "upload", "extra": {"retryable": True, "retry_after": seconds}}}
        for seconds in (None, 61.5, 7)
    ]
    error = raised([{"_id": "65a1b2c3d4e5f60718293a4f"}, *parts])
    assert str(error).endswith(". Wait 62 s, then run the flow again with the same messageId.")

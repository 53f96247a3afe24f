"""The step puts a message where it belongs, with its files, once, in as few requests as that takes."""

import base64
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from f.kustomer.record_message import Event, main
from f.kustomer.shared.errors import InvalidInput, KustomerError
from f.kustomer.shared.inputs import Node
from tests.record_message.test_event import FULL, NAMED_ONLY, NO_FILES
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

Body = dict[str, Any]

PATH = "f/kustomer/record_message"
TEXTS = {"first.txt": b"the first", "second.txt": b"the second", "third.bin": bytes(range(256)) * 300}
FILES = [{"name": name, "content": base64.b64encode(text).decode()} for name, text in TEXTS.items()]

step: Callable[[Any, Any], Body] = main


@pytest.fixture
def email() -> Body:
    """The first e-mail of a new customer."""
    return {
        "channel": "email",
        "messageId": "<CAF1044@mail.acme.example>",
        "email": "grace@example.com",
        "subject": "Order 1042",
        "text": "Hello, where is my order 1042?",
    }


@pytest.fixture
def record(kustomer: Kustomer, auth: Body) -> Callable[[Body], Body]:
    """Runs the step, which must record the one message: its attributes."""

    def recorded(event: Body) -> Body:
        found = step(auth, event)
        (message,) = kustomer.messages
        assert found["message"] == {"id": message["id"], "created": True}
        return dict(message["attributes"])

    return recorded


Record = Callable[[Body], Body]


def related(kustomer: Kustomer, name: str) -> str:
    """The id of what the one message is related to."""
    (message,) = kustomer.messages
    return str(message["relationships"][name]["data"]["id"])


def files_of(message: Body, kustomer: Kustomer) -> list[tuple[str, bytes]]:
    """Names and bytes of a message's files, in order."""
    return [(each["name"], kustomer.files[each["_id"]].head) for each in message.get("attachments", [])]


def asked(kustomer: Kustomer, since: int = 0) -> list[str]:
    """Method and collection of each request."""
    return [f"{seen.method} {seen.path.split('/')[2]}" for seen in kustomer.requests[since:]]


# Where it goes


def test_message_is_recorded_as_it_was_given(kustomer: Kustomer, auth: Body, record: Record) -> None:
    """With every input filled in, each is where it belongs."""
    given = {name: value for name, value in FULL.items() if name not in ("files", "custom")}
    given |= {"customerExternalId": "customer-1043"}
    message = record(given)
    same = {name: given[name] for name in ("channel", "direction", "app", "subject", "meta", "lang")}
    assert message.items() >= (same | {"externalId": given["messageId"], "preview": given["text"]}).items()
    (customer,), (conversation,) = kustomer.customers, kustomer.conversations
    assert customer["attributes"]["name"] == given["name"]
    assert customer["attributes"]["emails"] == [{"email": given["email"]}]
    assert customer["attributes"]["phones"] == [{"phone": given["phone"].replace(" ", "")}]
    assert customer["attributes"]["externalId"] == given["customerExternalId"]
    found = {name: conversation["attributes"][name] for name in ("name", "externalId")}
    assert found == {"name": given["subject"], "externalId": given["threadId"]}
    assert related(kustomer, "conversation") == conversation["id"]
    assert related(kustomer, "customer") == customer["id"]


def test_result_tells_what_is_there_and_what_is_new(kustomer: Kustomer, auth: Body, email: Body) -> None:
    """For a first message, a further one, and one that was there, by what Kustomer says of it."""
    first = step(auth, email | {"files": FILES[:1]})
    (message,), (customer,), (conversation,) = kustomer.messages, kustomer.customers, kustomer.conversations
    ids = {"message": message["id"], "conversation": conversation["id"], "customer": customer["id"]}
    attachments = message["attributes"]["attachments"]
    assert first == {name: {"id": each, "created": True} for name, each in ids.items()} | {"attachments": attachments}
    assert step(auth, email | {"files": FILES[:1]}) == (
        {name: {"id": each, "created": False} for name, each in ids.items()} | {"attachments": attachments}
    )
    further = step(auth, email | {"messageId": "2", "threadId": email["messageId"]})
    assert [further[name]["created"] for name in ids] == [True, False, False]
    assert further["attachments"] == []


def test_first_message_costs_six_requests_and_a_further_one_four(kustomer: Kustomer, auth: Body, email: Body) -> None:
    """Look-up and post of three things, then three look-ups and a post; one that is there costs its look-up."""
    step(auth, email)
    first = asked(kustomer)
    step(auth, email | {"messageId": "<CAF1045@mail.acme.example>", "threadId": email["messageId"]})
    further = asked(kustomer, len(first))
    step(auth, email | {"files": FILES})
    found = asked(kustomer, len(first) + len(further))
    made = ["GET customers", "POST customers", "GET conversations", "POST conversations"]
    assert first == ["GET messages", *made, "POST messages"]
    assert further == ["GET messages", "GET customers", "GET conversations", "POST messages"]
    assert found == ["GET messages"]
    assert kustomer.files == {}


def test_all_of_a_job_goes_over_one_connection(kustomer: Kustomer, auth: Body, email: Body) -> None:
    """Another one is opened only for files that go at the same time."""
    step(auth, email | {"files": FILES[:1]})
    assert len({seen.connection for seen in kustomer.requests}) <= 2


def test_message_without_a_thread_begins_one(kustomer: Kustomer, auth: Body, email: Body, record: Record) -> None:
    """A later message that names it as its thread goes to the same conversation."""
    record(email)
    (conversation,) = kustomer.conversations
    assert conversation["attributes"]["externalId"] == email["messageId"]
    step(auth, email | {"messageId": "<CAF1045@mail.acme.example>", "threadId": email["messageId"]})
    assert [each["relationships"]["conversation"]["data"]["id"] for each in kustomer.messages] == (
        [conversation["id"]] * 2
    )


def test_message_in_a_thread_of_another_customer_stays_in_that_customers_conversation(
    kustomer: Kustomer, auth: Body, email: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who writes from a second address is a second customer, and the thread still the first one's: which is told."""
    result = step(auth, email | {"threadId": "thread-1042"})
    assert result["customer"] == {"id": kustomer.customer, "created": False}
    assert "the thread is with another customer than who wrote" in capsys.readouterr().out
    assert related(kustomer, "conversation") == kustomer.conversation
    assert related(kustomer, "customer") == kustomer.customer
    assert len(kustomer.customers) == 1
    assert kustomer.conversations == []


@pytest.mark.parametrize(
    "known", [{"email": "Ada.Lindqvist@example.com "}, {"email": "", "customerExternalId": "\r\n customer-1042"}]
)
def test_known_customer_is_not_made_again(kustomer: Kustomer, email: Body, record: Record, known: Body) -> None:
    """However the address is written."""
    record(email | known)
    assert related(kustomer, "customer") == kustomer.customer
    assert kustomer.customers == []


def test_one_person_is_one_customer_in_every_spelling(kustomer: Kustomer, auth: Body, email: Body) -> None:
    """Messages come with what each channel makes of an address or a number."""
    spellings = [
        {"email": "Grace@BÜCHER.example"},
        {"email": "grace@xn--bcher-kva.example"},
        {"email": "grace@bu\N{COMBINING DIAERESIS}cher.example", "phone": "+39 (0)6 12345678"},
    ]
    found = [step(auth, email | {"messageId": str(n)} | each) for n, each in enumerate(spellings)]
    assert len(kustomer.customers) == 1
    assert {each["customer"]["id"] for each in found} == {kustomer.customers[0]["id"]}


# What is recorded


def test_files_are_attached_in_order_with_their_bytes(kustomer: Kustomer, email: Body, record: Record) -> None:
    """Each is where Kustomer said it should be uploaded."""
    message = record(email | {"files": FILES})
    assert files_of(message, kustomer) == list(TEXTS.items())
    assert [each["contentLength"] for each in message["attachments"]] == [len(text) for text in TEXTS.values()]


def test_more_files_than_are_uploaded_at_once_keep_their_order(kustomer: Kustomer, email: Body, record: Record) -> None:
    """Links and contents, eight of them."""
    links = [f"https://files.acme.example/{number}.pdf" for number in range(4)]
    files = [each for pair in zip(links, [*FILES, FILES[0]], strict=True) for each in pair]
    message = record(email | {"files": files})
    assert [each["name"] for each in message["attachments"]] == (
        ["0.pdf", "first.txt", "1.pdf", "second.txt", "2.pdf", "third.bin", "3.pdf", "first.txt"]
    )


def test_file_s_name_with_slashes_arrives_whole(kustomer: Kustomer, email: Body, record: Record) -> None:
    """Also as the file's name in the upload."""
    message = record(email | {"files": [FILES[0] | {"name": "Order_225/2385.pdf"}]})
    (attachment,) = message["attachments"]
    assert (attachment["name"], kustomer.files[attachment["_id"]].filename) == ("Order_225/2385.pdf",) * 2


@pytest.mark.parametrize("files", [*NO_FILES, *NAMED_ONLY], ids=repr)
def test_what_is_no_file_loses_neither_the_message_nor_another_file(
    kustomer: Kustomer, email: Body, record: Record, files: Any
) -> None:
    """In any spelling of empty."""
    beside = files if isinstance(files, list) else [files]
    message = record(email | {"files": [*beside, FILES[0]]})
    assert files_of(message, kustomer) == [("first.txt", b"the first")]


def test_file_that_is_left_out_is_told_in_the_log(
    email: Body, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its place; an untouched field of a form isn't worth a word."""
    record(email | {"files": ["", {"content": None, "name": "a"}, FILES[0]]})
    told = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    assert told == ["kustomer: files[1] is left out: nothing in it says where its bytes are"]


@pytest.mark.parametrize("empty", [None, "", [], {}], ids=repr)
def test_untouched_form_records_a_message(email: Body, record: Record, empty: Any) -> None:
    """Beside what is needed, everything may be empty, in any way that a form or a webhook has for it."""
    needed = {name: email[name] for name in (*Node(Event).required, "email", "text")}
    message = record(dict.fromkeys(Event.__annotations__, empty) | needed)
    assert (message["direction"], message["app"]) == ("in", "windmill")
    assert not message.keys() & {"subject", "attachments", "meta", "custom", "lang"}


def test_long_texts_are_cut_visibly(kustomer: Kustomer, email: Body, record: Record) -> None:
    """At a whole character, and short enough for Kustomer."""
    long = "\N{GRINNING FACE}" * 50_000
    message = record(email | {"text": long, "subject": long, "name": long})
    assert message["preview"] == long[:10_236] + " […]"
    cut = long[:252] + " […]"
    assert message["subject"] == cut
    assert kustomer.conversations[0]["attributes"]["name"] == cut
    assert kustomer.customers[0]["attributes"]["name"] == cut


# Once


def test_redelivered_message_is_recorded_once(kustomer: Kustomer, auth: Body, email: Body) -> None:
    """With one customer and one conversation; no file is uploaded for it again."""
    first, second = (step(auth, email | {"files": FILES}) for _ in range(2))
    assert first["message"]["id"] == second["message"]["id"]
    assert [len(each) for each in (kustomer.messages, kustomer.customers, kustomer.conversations)] == [1, 1, 1]
    assert len(kustomer.attachments) == len(FILES)


def test_blanks_around_an_id_are_no_part_of_it(kustomer: Kustomer, auth: Body, email: Body) -> None:
    """A template that leaves a line's end makes no second message, conversation or customer."""
    given = email | {"threadId": "t-1", "customerExternalId": "c-1"}
    ids = ("messageId", "threadId", "customerExternalId")
    for around in ("{}", " {}", "{}\r\n", "\r\n\t{}"):
        step(auth, given | {name: around.format(given[name]) for name in ids})
    assert (len(kustomer.messages), len(kustomer.conversations), len(kustomer.customers)) == (1, 1, 1)


def test_sixteen_threads_at_once_each_get_their_own(kustomer: Kustomer, auth: Body, email: Body) -> None:
    """As on a worker that runs several jobs in one process: nobody's message, file or answer goes to another."""
    gate = threading.Barrier(16)

    def run(number: int) -> Body:
        gate.wait()
        own = {"messageId": f"m{number}", "email": f"c{number}@example.com", "text": f"text {number}"}
        files = [{"name": f"{number}-{index}.txt", "content": HELLO} for index in range(3)]
        return step(auth, email | own | {"files": files})

    kustomer.org_limit = 10_000
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(run, range(16)))
    messages = {each["id"]: each for each in kustomer.messages}
    customers = {each["id"]: each["attributes"]["emails"][0]["email"] for each in kustomer.customers}
    assert len(messages) == len(customers) == len(kustomer.conversations) == 16
    for number, each in enumerate(found):
        told = messages[each["message"]["id"]]["attributes"]
        assert (told["externalId"], told["preview"]) == (f"m{number}", f"text {number}")
        assert [file["name"] for file in told["attachments"]] == [f"{number}-{index}.txt" for index in range(3)]
        assert told["attachments"] == each["attachments"]
        assert customers[each["customer"]["id"]] == f"c{number}@example.com"


HELLO = base64.b64encode(b"Hello").decode()


def test_the_same_message_sixteen_times_at_once_is_recorded_once_where_kustomer_refuses_a_second(
    auth: Body, email: Body
) -> None:
    """Those that lose find what the first one has made."""
    gate = threading.Barrier(16)
    with Kustomer(unique_external_ids=True) as kustomer:
        here = {"apiKey": kustomer.keys["full"], "baseUrl": kustomer.url}

        def run(_: int) -> Body:
            gate.wait()
            return step(here, email)

        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(run, range(16)))
        assert [len(each) for each in (kustomer.messages, kustomer.customers, kustomer.conversations)] == [1, 1, 1]
        assert {each["message"]["id"] for each in found} == {kustomer.messages[0]["id"]}


# What is asked for


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"email": None}, ["email"]),
        ({"email": "grace", "phone": "+999 12345"}, ["email", "phone"]),
        ({"text": "", "subject": None, "files": []}, ["text"]),
        ({"messageId": " "}, ["messageId"]),
        (
            {"messageId": "\u200b", "threadId": "\n", "customerExternalId": "\t"},
            ["messageId", "threadId", "customerExternalId"],
        ),
        ({"messageId": 5, "text": {"html": "<p>"}, "subject": ["S"]}, ["messageId", "text", "subject"]),
        ({"text": {"toString": 1}}, ["text"]),
        ({"thread_id": "t9", "Text": "T", "body": "B"}, ["thread_id", "Text", "body"]),
        ({"channel": "letter", "direction": "inbound", "sentAt": "yesterday"}, ["channel", "direction", "sentAt"]),
        ({"files": ["", {"name": "a.pdf"}, 7, "http://x.example/y"]}, ["files[2]", "files[3]"]),
        ({"files": {"content": "a b"}}, ["files[0].content"]),
        ({"files": [f"https://x.example/{'n' * 250}{n}" for n in range(400)]}, ["body"]),
        ({"text": None, "subject": None, "files": [{"name": "a.txt", "content": ""}]}, ["text"]),
    ],
    ids=lambda value: str(value)[:60],
)
def test_wrong_inputs_are_told_all_at_once_and_by_name(
    kustomer: Kustomer, auth: Body, email: Body, given: Body, paths: list[str]
) -> None:
    """With those of auth, before anything is sent, so that no customer and no conversation is left behind."""
    with pytest.raises(InvalidInput) as raised:
        step(auth | {"orgName": "a b"}, email | given)
    error = raised.value
    assert sorted(str(each["path"]) for each in error.errors) == sorted(["auth.orgName", *paths])
    assert (error.outcome, error.retryable, error.attempts) == ("not_sent", False, 0)
    assert kustomer.requests == []


@pytest.mark.parametrize("body", [None, "text", [], 5, "$res:f/kustomer/x"], ids=repr)
def test_what_is_no_event_is_told(kustomer: Kustomer, auth: Body, body: object) -> None:
    """Whatever it is."""
    with pytest.raises(InvalidInput) as raised:
        step(auth, body)
    assert [each["path"] for each in raised.value.errors] == ["body"]
    assert kustomer.requests == []


# As a job


def test_job_records_a_message_with_a_file_from_the_object_storage(
    kustomer: Kustomer, windmill: Workspace, auth: Body, email: Body
) -> None:
    """With what is deployed and nothing else; the same job again finds it."""
    windmill.store("windmill_uploads/1042", TEXTS["third.bin"])
    files = [{"s3": "windmill_uploads/1042", "filename": "third.bin"}, "s3:///windmill_uploads/1042"]
    args = {"auth": auth, "body": email | {"phone": "+39 (0)6 12345678", "files": files}}
    first, second = (worker.run(PATH, args, workspace=windmill) for _ in range(2))
    assert first.ok, first.error
    (message,) = kustomer.messages
    contents = [("third.bin", TEXTS["third.bin"]), ("1042", TEXTS["third.bin"])]
    assert files_of(message["attributes"], kustomer) == contents
    assert [job.result["message"] for job in (first, second)] == [
        {"id": message["id"], "created": True},
        {"id": message["id"], "created": False},
    ]
    log = first.logs + second.logs
    assert [text for text in (email["email"], email["text"], "+390612345678", auth["apiKey"]) if text in log] == []


def test_job_tells_what_became_of_a_message_that_failed(
    kustomer: Kustomer, windmill: Workspace, auth: Body, email: Body
) -> None:
    """The error is the step's own, with all its attributes."""
    args = {"auth": auth | {"apiKey": kustomer.keys["no_create"]}, "body": email}
    error = worker.run(PATH, args, workspace=windmill).error or {}
    assert (error["name"], error["extra"]["status"], error["extra"]["outcome"]) == ("AccessDenied", 403, "not_sent")
    assert "This run did not send the message." in error["message"]


def test_log_has_one_line_for_each_thing(
    kustomer: Kustomer, email: Body, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    """Customer, conversation, the two halves of an attachment, message; nothing that anybody wrote."""
    record(email | {"files": FILES[:1]})
    log = capsys.readouterr().out
    things = ["customer", "conversation", "attachment", "file", "message"]
    assert [line.split(", ")[1].split()[0] for line in log.splitlines()] == things
    assert [each for each in (email["email"], email["subject"], email["text"], "first.txt") if each in log] == []


def test_errors_are_those_of_the_steps(kustomer: Kustomer, auth: Body, email: Body) -> None:
    """With the attributes that every step's errors have."""
    kustomer.fault(Fault.answer(429, headers={"Retry-After": "600"}, on="POST", at="/v1/conversations"))
    with pytest.raises(KustomerError) as raised:
        step(auth, email)
    error = raised.value
    assert (type(error).__name__, error.retryable, error.retry_after) == ("RateLimited", True, 600)
    assert json.loads(json.dumps(vars(error))) == vars(error)
    assert error.attempts == len(kustomer.requests)

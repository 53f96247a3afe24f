"""The flow puts a message where it belongs, with its files, once; scripts and expressions are the real ones."""

import base64
import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests import windmill_cli
from tests.standin import flow as standin
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace
from tests.test_flow import EXAMPLES, FLOW, FOLDER, INPUTS, REQUIRED

Body = dict[str, Any]

PATH = "f/kustomer/record_message"
TEXTS = {"first.txt": b"the first", "second.txt": b"the second", "third.bin": bytes(range(256)) * 300}
FILES = [{"name": name, "content": base64.b64encode(text).decode()} for name, text in TEXTS.items()]

# What Windmill would resolve in any argument.
REFERENCES = ["$var:f/kustomer/api_key", "$res:f/kustomer/api", "$WM_TOKEN", "$encrypted:x", "$var:f/not/there"]


@pytest.fixture(autouse=True)
def node() -> None:
    """Every flow has expressions."""
    windmill_cli.need_node()


@pytest.fixture(scope="module")
def server() -> Iterator[Kustomer]:
    """One stand-in for all tests here."""
    with Kustomer() as running:
        yield running


@pytest.fixture
def kustomer(server: Kustomer) -> Kustomer:
    """It has forgotten the test before."""
    server.clear()
    return server


@pytest.fixture
def email(auth: Body) -> Body:
    """The first e-mail of a new customer."""
    return {
        "auth": auth,
        "channel": "email",
        "messageId": "<CAF1044@mail.acme.example>",
        "email": "grace@example.com",
        "subject": "Order 1042",
        "text": "Hello, where is my order 1042?",
    }


def run(given: Body, run_job: standin.RunJob = standin.run_in_process, **options: Any) -> standin.FlowRun:
    """Run the flow, each script in this process."""
    return standin.run(FLOW, given, run_job, folder=FOLDER, **options)


def recorded(given: Body, kustomer: Kustomer, **options: Any) -> Body:
    """What is recorded by a run that must succeed: the attributes of the one message."""
    ran = run(given, **options)
    assert ran.ok, ran.result
    (message,) = kustomer.messages
    assert ran.result["data"]["id"] == message["id"]
    return dict(message["attributes"])


def related(kustomer: Kustomer, name: str) -> str:
    """The id of what the one message is related to."""
    (message,) = kustomer.messages
    return str(message["relationships"][name]["data"]["id"])


def files_of(message: Body, kustomer: Kustomer) -> list[tuple[str, bytes]]:
    """Names and bytes of a message's files, in order."""
    return [(each["name"], kustomer.files[each["_id"]].head) for each in message.get("attachments", [])]


# Where it goes


def test_message_is_recorded_as_it_was_given(kustomer: Kustomer, email: Body) -> None:
    """With every input filled in, each is where it belongs."""
    given = EXAMPLES | {"auth": email["auth"], "customerExternalId": "customer-1043", "files": []}
    message = recorded(given, kustomer)
    told = {name: given[name] for name in ("channel", "direction", "app", "subject", "sentAt")}
    assert message.items() >= (told | {"externalId": given["messageId"], "preview": given["text"]}).items()
    (customer,), (conversation,) = kustomer.customers, kustomer.conversations
    assert customer["attributes"]["name"] == given["name"]
    assert customer["attributes"]["emails"] == [{"email": given["email"]}]
    assert customer["attributes"]["phones"] == [{"phone": given["phone"].replace(" ", "")}]
    assert customer["attributes"]["externalId"] == given["customerExternalId"]
    found = {name: conversation["attributes"][name] for name in ("name", "externalId")}
    assert found == {"name": given["subject"], "externalId": given["threadId"]}
    assert related(kustomer, "conversation") == conversation["id"]
    assert related(kustomer, "customer") == customer["id"]


def test_message_without_a_thread_begins_one(kustomer: Kustomer, email: Body) -> None:
    """A later message that names it as its thread goes to the same conversation."""
    recorded(email, kustomer)
    (conversation,) = kustomer.conversations
    assert conversation["attributes"]["externalId"] == email["messageId"]
    assert run(email | {"messageId": "<CAF1045@mail.acme.example>", "threadId": email["messageId"]}).ok
    assert [each["relationships"]["conversation"]["data"]["id"] for each in kustomer.messages] == (
        [conversation["id"]] * 2
    )


def test_first_message_costs_six_requests_and_a_further_one_four(kustomer: Kustomer, email: Body) -> None:
    """Look-up and post of three things, then two look-ups less their posts."""
    assert run(email).ok
    first = [f"{seen.method} {seen.path.split('/')[2]}" for seen in kustomer.requests]
    kustomer.requests.clear()
    assert run(email | {"messageId": "<CAF1045@mail.acme.example>", "threadId": email["messageId"]}).ok
    further = [f"{seen.method} {seen.path.split('/')[2]}" for seen in kustomer.requests]
    things = ("customers", "conversations", "messages")
    assert first == [f"{method} {thing}" for thing in things for method in ("GET", "POST")]
    assert further == ["GET customers", "GET conversations", "GET messages", "POST messages"]


def test_message_in_a_thread_of_another_customer_stays_in_that_customers_conversation(
    kustomer: Kustomer, email: Body
) -> None:
    """Who writes from a second address is a second customer, and the thread still the first one's."""
    recorded(email | {"threadId": "thread-1042"}, kustomer)
    assert related(kustomer, "conversation") == kustomer.conversation
    assert related(kustomer, "customer") == kustomer.customer
    assert len(kustomer.customers) == 1
    assert kustomer.conversations == []


@pytest.mark.parametrize(
    "known", [{"email": "Ada.Lindqvist@example.com "}, {"email": "", "customerExternalId": "customer-1042"}]
)
def test_known_customer_is_not_made_again(kustomer: Kustomer, email: Body, known: Body) -> None:
    """However the address is written."""
    recorded(email | known, kustomer)
    assert related(kustomer, "customer") == kustomer.customer
    assert kustomer.customers == []


# What is recorded


def test_files_are_attached_in_order_with_their_bytes(kustomer: Kustomer, email: Body) -> None:
    """Each is where Kustomer said it should be uploaded."""
    message = recorded(email | {"files": FILES}, kustomer)
    assert files_of(message, kustomer) == list(TEXTS.items())
    assert [each["contentLength"] for each in message["attachments"]] == [len(text) for text in TEXTS.values()]


def test_more_files_than_are_uploaded_at_once_keep_their_order(kustomer: Kustomer, email: Body) -> None:
    """Links and contents, eight of them."""
    links = [f"https://files.acme.example/{number}.pdf" for number in range(4)]
    files = [each for pair in zip(links, [*FILES, FILES[0]], strict=True) for each in pair]
    message = recorded(email | {"files": files}, kustomer)
    assert [each["name"] for each in message["attachments"]] == (
        ["0.pdf", "first.txt", "1.pdf", "second.txt", "2.pdf", "third.bin", "3.pdf", "first.txt"]
    )


@pytest.mark.parametrize(
    "untouched",
    [{}, dict.fromkeys(INPUTS), dict.fromkeys(INPUTS, "") | {"files": []}, dict.fromkeys(INPUTS, "")],
    ids=["absent", "null", "empty", "empty text"],
)
def test_untouched_form_records_a_message(kustomer: Kustomer, email: Body, untouched: Body) -> None:
    """Beside what is needed, everything may be empty, in any way that a form or a webhook has for it."""
    needed = {name: email[name] for name in (*REQUIRED, "email", "text")}
    message = recorded(untouched | needed, kustomer)
    assert (message["direction"], message["app"]) == ("in", "windmill")
    assert not message.keys() & {"subject", "attachments"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("x" * 10_200, "x" * 10_200),
        ("x" * 10_201, "x" * 10_200 + " […]"),
        ("\n" * 40_000, "\n" * 10_200 + " […]"),
        ("\N{GRINNING FACE}" * 10_200, "\N{GRINNING FACE}" * 10_200),
        ("\N{GRINNING FACE}" * 10_201, "\N{GRINNING FACE}" * 10_200 + " […]"),
        ("x" + "\N{GRINNING FACE}" * 50_000, "x" + "\N{GRINNING FACE}" * 10_199 + " […]"),
        ("x" * 2_000_000, "x" * 10_200 + " […]"),
    ],
    ids=["whole", "one too many", "lines", "emoji", "one emoji too many", "many more", "huge"],
)
def test_long_text_is_cut_visibly(kustomer: Kustomer, email: Body, text: str, shown: str) -> None:
    """At a whole character, and short enough for Kustomer."""
    assert recorded(email | {"text": text}, kustomer)["preview"] == shown


def test_long_subject_and_name_are_cut_visibly(kustomer: Kustomer, email: Body) -> None:
    """The conversation's name too."""
    long, cut = "\N{GRINNING FACE}" * 400, "\N{GRINNING FACE}" * 250 + " […]"
    message = recorded(email | {"subject": long, "name": long}, kustomer)
    assert message["subject"] == cut
    assert kustomer.conversations[0]["attributes"]["name"] == cut
    assert kustomer.customers[0]["attributes"]["name"] == cut


# Once


def test_redelivered_message_is_recorded_once(kustomer: Kustomer, email: Body) -> None:
    """With one customer and one conversation; both runs give the same answer."""
    first, second = (run(email | {"files": FILES}) for _ in range(2))
    assert first.ok
    assert second.ok
    assert first.result["data"]["id"] == second.result["data"]["id"]
    assert [len(each) for each in (kustomer.messages, kustomer.customers, kustomer.conversations)] == [1, 1, 1]


class Died(Exception):
    """The server that ran the flow is gone."""


@pytest.mark.parametrize("last", range(1, 6))
def test_flow_that_died_is_run_again_without_harm(kustomer: Kustomer, email: Body, last: int) -> None:
    """After whichever job it ended, the second run records the message once, with its files."""
    numbers = itertools.count(1)

    def run_job(script: standin.Script, args: Body, env: dict[str, str]) -> worker.Job:
        job = standin.run_in_process(script, args, env)
        if next(numbers) == last:
            raise Died
        return job

    given = email | {"files": FILES[:2]}
    with pytest.raises(Died):
        run(given, run_job)
    message = recorded(given, kustomer)
    assert files_of(message, kustomer) == list(TEXTS.items())[:2]
    assert [len(each) for each in (kustomer.customers, kustomer.conversations)] == [1, 1]


# What is asked for


@pytest.mark.parametrize("name", INPUTS)
def test_input_is_required_where_a_step_refuses_to_go_without(kustomer: Kustomer, email: Body, name: str) -> None:
    """Everything else may be missing by itself."""
    given = EXAMPLES | {"auth": email["auth"]}
    ran = run({each: value for each, value in given.items() if each != name})
    assert ran.ok is (name not in REQUIRED), ran.result
    if not ran.ok:
        assert ran.result["error"]["extra"]["kind"] == "InvalidInput"
        assert kustomer.messages == []


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"email": None}, ["email"]),
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
        ({"files": ["", {"name": "a.pdf"}, 7, "https://x.example/y"]}, ["files[1]", "files[2]"]),
        ({"text": None, "subject": None, "files": [{"name": "a.txt", "content": ""}]}, ["text"]),
    ],
    ids=str,
)
def test_wrong_inputs_are_told_all_at_once_and_by_name(
    kustomer: Kustomer, email: Body, given: Body, paths: list[str]
) -> None:
    """Before anything is sent, so that no customer and no conversation is left behind."""
    error = run(email | given).result["error"]
    assert sorted(each["path"] for each in error["extra"]["errors"]) == sorted(paths)
    assert (error["extra"]["step"], error["extra"]["outcome"]) == ("check", "not_sent")
    assert kustomer.requests == []


def test_empty_file_is_left_out(kustomer: Kustomer, email: Body) -> None:
    """It keeps nobody's message from being recorded."""
    message = recorded(email | {"files": [{"name": "empty.txt", "content": ""}, FILES[0]]}, kustomer)
    assert [each["name"] for each in message["attachments"]] == [FILES[0]["name"]]


def test_blanks_around_an_id_are_no_part_of_it(kustomer: Kustomer, email: Body) -> None:
    """A template that leaves a line's end makes no second message, conversation or customer."""
    given = email | {"threadId": "t-1", "customerExternalId": "c-1"}
    ids = ("messageId", "threadId", "customerExternalId")
    for around in ("{}", " {}", "{}\r\n"):
        assert run(given | {name: around.format(given[name]) for name in ids}).ok
    assert (len(kustomer.messages), len(kustomer.conversations), len(kustomer.customers)) == (1, 1, 1)


# References


@pytest.fixture
def workspace(auth: Body) -> Workspace:
    """A workspace whose resource holds the key as a variable."""
    made = Workspace()
    made.hold("variables", "f/kustomer/api_key", {"value": auth["apiKey"]})
    made.hold("resources", "f/kustomer/api", {"value": auth | {"apiKey": "$var:f/kustomer/api_key"}})
    return made


@pytest.mark.parametrize("reference", REFERENCES)
def test_reference_in_a_message_stays_text(
    kustomer: Kustomer, email: Body, workspace: Workspace, reference: str
) -> None:
    """Nobody gets a secret of the workspace onto a timeline by writing its name; a blank before it keeps it text."""
    fields = ("text", "subject", "name", "messageId", "threadId", "customerExternalId", "app")
    files = [
        FILES[0] | {"name": reference},
        {"externalUrl": "https://a.example/b", "name": reference},
        f"https://a.example/{reference.replace('/', '%2F')}",
    ]
    given = email | dict.fromkeys(fields, reference) | {"auth": "$res:f/kustomer/api", "files": files}
    message = recorded(given, kustomer, resolve=workspace.resolve)
    (customer,), (conversation,) = kustomer.customers, kustomer.conversations
    shown = [
        *(message[name] for name in ("preview", "subject", "app")),
        *(each["name"] for each in message["attachments"][:2]),
        *(each["attributes"]["name"] for each in (customer, conversation)),
    ]
    assert shown == [f" {reference}"] * len(shown)
    ids = [message["externalId"], *(each["attributes"]["externalId"] for each in (customer, conversation))]
    assert ids == [reference] * 3
    assert message["attachments"][2]["name"].endswith(reference.rpartition("/")[2])


@pytest.mark.parametrize("file", [{"s3": REFERENCES[0]}, {"content": REFERENCES[0]}, REFERENCES[0]])
def test_reference_in_place_of_a_file_is_not_resolved(
    kustomer: Kustomer, email: Body, workspace: Workspace, file: Any
) -> None:
    """It is refused or not found."""
    ran = run(email | {"auth": "$res:f/kustomer/api", "files": [file]}, resolve=workspace.resolve)
    (failed,) = ran.result
    assert failed["error"]["extra"]["kind"] in ("InvalidInput", "FileNotRead")
    assert kustomer.files == {}


def test_reference_in_an_error_is_not_resolved(kustomer: Kustomer, email: Body, workspace: Workspace) -> None:
    """The failure module gets the error as an argument, in which Windmill resolves too."""
    said = {"errors": [{"title": "No", "detail": reference} for reference in REFERENCES]}
    kustomer.fault(Fault.answer(400, said, at="/v1/messages"))
    ran = run(email, resolve=workspace.resolve)
    assert [each["detail"] for each in ran.result["error"]["extra"]["errors"]] == [f" {each}" for each in REFERENCES]
    assert email["auth"]["apiKey"] not in json.dumps(ran.result)


@pytest.mark.parametrize("text", ["$5.00", "$", "$ res:f/kustomer/api", "costs $var:f/x", "{$var:f/x}"])
def test_other_text_with_a_dollar_stays_as_it_is(
    kustomer: Kustomer, email: Body, workspace: Workspace, text: str
) -> None:
    """Only what begins like a reference gets a blank."""
    message = recorded(email | {"text": text, "subject": text}, kustomer, resolve=workspace.resolve)
    assert (message["preview"], message["subject"]) == (text, text)


# On workers


@pytest.fixture(scope="module")
def windmill() -> Iterator[Workspace]:
    """A workspace that serves this repository's scripts, holds the flow and runs it when its webhook is called."""

    def run_flow(path: str, given: Body) -> tuple[bool, Any]:
        assert path == PATH
        ran = run(given, resolve=running.resolve)
        return ran.ok, ran.result

    with Workspace(scripts_from=worker.ROOT, run_flow=run_flow) as running:
        running.hold("flows", PATH, FLOW)
        yield running


def test_workers_record_the_message(kustomer: Kustomer, windmill: Workspace, email: Body) -> None:
    """Each step in a process of its own, with what is deployed and nothing else."""
    message = recorded(email, kustomer, run_job=standin.run_as_worker(windmill))
    assert message["preview"] == email["text"]


def test_workers_take_a_file_from_the_object_storage(kustomer: Kustomer, windmill: Workspace, email: Body) -> None:
    """As the form gives it."""
    windmill.store("windmill_uploads/1042", TEXTS["third.bin"])
    files = [{"s3": "windmill_uploads/1042", "filename": "third.bin"}]
    message = recorded(email | {"files": files}, kustomer, run_job=standin.run_as_worker(windmill))
    assert files_of(message, kustomer) == [("third.bin", TEXTS["third.bin"])]


def test_workers_tell_what_became_of_a_message_that_failed(
    kustomer: Kustomer, windmill: Workspace, email: Body
) -> None:
    """The flow's error is that of the failure module."""
    key = {"apiKey": kustomer.keys["no_create"]}
    ran = run(email | {"auth": email["auth"] | key}, standin.run_as_worker(windmill))
    error = ran.result["error"]
    assert (ran.ok, error["name"], error["step_id"]) == (False, "RecordingFailed", "failure")
    assert error["message"].startswith("This run has not recorded the message, as the step customer failed with Access")
    assert (error["extra"]["status"], error["extra"]["outcome"]) == (403, "not_sent")


def test_webhook_records_a_message_once(kustomer: Kustomer, windmill: Workspace, email: Body) -> None:
    """The same delivery twice gives the same answer."""
    windmill.hold("resources", "f/kustomer/api", {"value": email["auth"]})
    delivery = email | {"auth": "$res:f/kustomer/api", "files": ["https://files.acme.example/invoice.pdf"]}
    url = f"{windmill.url}api/w/{windmill.id}/jobs/run_wait_result/f/{PATH}"
    headers = {"Authorization": f"Bearer {windmill.token}"}
    answers = [requests.post(url, json=delivery, headers=headers, timeout=30) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    (message,) = kustomer.timeline(kustomer.conversations[0]["id"])
    assert [answer.json()["data"]["id"] for answer in answers] == [message["id"]] * 2
    assert message["attributes"]["preview"] == email["text"]
    assert requests.post(url, json=delivery, timeout=30).status_code == 401


def test_webhook_tells_what_became_of_a_message_that_failed(
    kustomer: Kustomer, windmill: Workspace, email: Body
) -> None:
    """Who called it can act on the answer."""
    url = f"{windmill.url}api/w/{windmill.id}/jobs/run_wait_result/f/{PATH}"
    answer = requests.post(url, json=email | {"channel": "letter"}, params={"token": windmill.token}, timeout=30)
    extra = answer.json()["error"]["extra"]
    assert (extra["step"], extra["kind"], extra["outcome"]) == ("check", "InvalidInput", "not_sent")
    assert [each["path"] for each in extra["errors"]] == ["channel"]

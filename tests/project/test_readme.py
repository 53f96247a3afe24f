"""What the README and the page of the steps say is so: their commands, numbers, errors and examples."""

import importlib
import json
import re
import shlex
from typing import Any, get_type_hints

import pytest
import yaml

from f.kustomer import check_connection, record_message
from f.kustomer.create_message import Message, main
from f.kustomer.shared import client, errors, inputs, wire
from tests import lock, windmill_cli
from tests.conftest import Body, Step
from tests.errors.test_errors import every_error, one_of_each
from tests.record_message.test_flow import FLOW as FLOW_OF_OURS
from tests.record_message.test_flow import REFERENCES, RETRY, arguments
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

README = (worker.ROOT / "README.md").read_text(encoding="utf-8")
STEPS_PAGE = (worker.ROOT / "f" / "kustomer" / "README.md").read_text(encoding="utf-8")
PROSE = " ".join((README + STEPS_PAGE).split())


def example(page: str) -> Any:
    """The page's first example in YAML."""
    return yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, re.S)[0])


# Of the README the step alone; of the page of the steps a whole flow.
FLOWS: dict[str, dict[str, Any]] = {
    "record_message": {"summary": "Record", "value": {"modules": example(README)}},
    "create_message": example(STEPS_PAGE),
}


def step_of(name: str) -> dict[str, Any]:
    """The step of an example."""
    found: dict[str, Any] = FLOWS[name]["value"]["modules"][0]
    return found


def body_of(name: str, given: Body) -> Any:
    """What the step of an example gets of these inputs of the flow."""
    transforms = step_of(name)["value"]["input_transforms"]
    return windmill_cli.evaluate(transforms["body"]["expr"], flow_input=given)


def test_front_page_is_read_in_a_few_minutes() -> None:
    """What is longer goes to the page of the steps."""
    assert len(README.split()) <= 1_200


@pytest.mark.parametrize(("folder", "page"), [("", README), ("f/kustomer", STEPS_PAGE)], ids=["README", "steps"])
def test_every_link_leads_somewhere(folder: str, page: str) -> None:
    """To a file that is there, and to a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        path, _, anchor = target.partition("#")
        if path.startswith("https://"):
            continue
        text = (worker.ROOT / folder / path).read_bytes() if path else page.encode()
        headings = re.findall(r"^#+ (.*)$", text.decode("utf-8", "replace"), re.M)
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def test_first_two_commands_are_the_demo_and_the_tests() -> None:
    """A newcomer sees the step at work, then the proof."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.S)
    assert [line.strip() for line in "".join(blocks).splitlines()][:2] == ["make demo", "make test"]


@pytest.mark.parametrize(
    "words",
    [
        f"Connecting takes at most {wire.CONNECT_SECONDS:g} s",
        f"a request with its whole answer {wire.READ_SECONDS:g} s",
        f"after {client.BUDGET_SECONDS:g} s nothing new is tried",
        f"is over after {client.BUDGET_SECONDS + wire.CONNECT_SECONDS + wire.READ_SECONDS:g} s at most",
        f"one after the other ({3 * (client.BUDGET_SECONDS + wire.CONNECT_SECONDS + wire.READ_SECONDS):g} s)",
        f"A file must go at {wire.SLOWEST_BYTES_PER_SECOND / 1000:g} kB/s over any {wire.READ_SECONDS:g} s",
        f"over after {wire.CONNECT_SECONDS + 2 * wire.READ_SECONDS:g} s",
        f"An answer may have {wire.MAX_ANSWER_BYTES / 1e6:g} MB",
        f"It tries {client.LIMITED_ATTEMPTS} times for a 429 and {client.OTHER_ATTEMPTS} times for anything else",
        f"else {client.FIRST_WAIT_SECONDS:g}, 4, 8, 16 and {client.FIRST_WAIT_SECONDS * 2**4:g} s",
        f"kept for up to {wire.IDLE_SECONDS:g} s",
        f"A body may have {inputs.MAX_BODY_BYTES:,} bytes",
        "3 times, after about {}, {} and {} s".format(
            *(RETRY["exponential"]["multiplier"] * RETRY["exponential"]["seconds"] ** each for each in (1, 2, 3))
        ),
        f"calls go to `{inputs.DEFAULT_BASE}`",
    ],
)
def test_number_is_the_one_in_the_code(words: str) -> None:
    """A promise's number can't drift from the constant behind it."""
    assert words in PROSE


def test_hours_of_a_history_follow_from_its_requests() -> None:
    """At half of the limit that the table's head names, with the requests that stand below it."""
    told = re.search(r"([\d,]+) requests for a thousand messages, ([\d,]+) where it looks", PROSE)
    assert told
    rows = re.findall(r"^\| ([\d,]+) messages \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|$", STEPS_PAGE, re.M)
    assert len(rows) == 3
    for messages, *hours in rows:
        thousands = int(messages.replace(",", "")) / 1_000
        each = [thousands * int(requests) / (limit / 2) / 60 for limit in (500, 2_000) for requests in told.groups()]
        assert [float(hour) for hour in hours] == pytest.approx(each, rel=0.05, abs=0.005)


def test_fifth_on_top_is_the_jitter_in_the_code() -> None:
    """The README says it in words."""
    assert "each up to a fifth longer" in PROSE
    assert client.JITTER == 1 / 5


def test_table_of_errors_has_every_error_once() -> None:
    """What can be raised is explained."""
    named = re.findall(r"^\| `(\w+)` \|", README.partition("## When it fails")[2], re.M)
    assert sorted(named) == sorted(each.__name__ for each in every_error() if each is not errors.KustomerError)


def test_table_of_errors_is_true(kustomer: Kustomer, run: Step, message: Body) -> None:
    """Outcome and retryable of an error without an externalId are those that its row tells."""
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \| (.*?) \|", README, re.M)
    told = {name: (outcomes.split(" or "), retryable == "yes") for name, outcomes, retryable in rows}
    for error in one_of_each(kustomer, run, message):
        outcomes, retryable = told[type(error).__name__]
        assert error.outcome in outcomes
        assert error.retryable is retryable


# Step -> what its row says of the body, the result and the roles.
STEPS = {
    row[0]: row[1:]
    for row in re.findall(r"^\| `(\w+)` \| (.*?) ?\| (.*?) \| (.*?) \|$", STEPS_PAGE, re.M)
    if row[0] in check_connection.STEPS
}


def test_table_of_steps_has_every_step_once() -> None:
    """What is deployed is explained, and nothing else."""
    steps = {script.stem for script in lock.STEPS}
    assert STEPS.keys() == check_connection.STEPS.keys() == steps


@pytest.mark.parametrize("step", STEPS)
def test_table_of_steps_names_the_roles_that_check_connection_asks_for(step: str) -> None:
    """Whoever makes a key reads the same in both places."""
    needed = {need.roles[0] for needs in check_connection.STEPS[step] for need in needs}
    assert set(re.findall(r"org\.[\w.]+\w", STEPS[step][2])) == needed


@pytest.mark.parametrize("step", ["find_customer", "find_conversation", "upload_attachment"])
def test_table_of_steps_names_every_field(step: str) -> None:
    """What the form has, the table has."""
    shape = get_type_hints(_module(step).main)["body"]
    assert set(re.findall(r"`(\w+)`", STEPS[step][0])) == set(get_type_hints(shape))


def _module(name: str) -> Any:
    return importlib.import_module(f"f.kustomer.{name}")


def test_table_of_inputs_has_every_input_of_the_flow() -> None:
    """And says which are needed."""
    schema = windmill_cli.read_yaml(worker.ROOT / "f/kustomer/record_message__flow/flow.yaml")["schema"]
    rows = re.findall(r"^\| (`.*?`) \| (.*?) \|$", STEPS_PAGE.partition("| input |")[2].partition("\n\n")[0], re.M)
    told = {name: text for names, text in rows for name in re.findall(r"`(\w+)`", names)}
    assert told.keys() == schema["properties"].keys()
    assert {name for name, text in told.items() if text.startswith("needed: ")} == set(schema["required"])


def test_webhook_of_the_readme_records_a_message_once(kustomer: Kustomer, auth: Body, storage: Workspace) -> None:
    """Its command, posted twice to a workspace that has nothing but the resource it names."""
    command = shlex.split(re.findall(r"```bash\n(curl .*?)```", README, re.S)[0])
    given = json.loads(command[command.index("-d") + 1])
    storage.hold("resources", "f/kustomer/api", {"value": auth})
    ((step, told),) = arguments(FLOW_OF_OURS, given)
    results = [step(**storage.resolve(told)) for _ in range(2)]
    [message] = kustomer.messages
    assert [each["message"]["id"] for each in results] == [message["id"]] * 2
    assert message["attributes"]["externalId"] == given["messageId"]
    assert [each["name"] for each in message["attributes"]["attachments"]] == ["photo.jpg"]
    assert command[1] == "$WINDMILL/api/w/$WORKSPACE/jobs/run/f/f/kustomer/record_message"


def test_pinned_cli_is_the_one_that_is_tested() -> None:
    """The deployment is proven with the version that the README installs."""
    packages = json.loads((worker.ROOT / "tests" / "package.json").read_text(encoding="utf-8"))["dependencies"]
    assert f"windmill-cli@{packages['windmill-cli']}" in README


@pytest.mark.parametrize("picture", re.findall(r"!\[.*?\]\((.*?)\)", README))
def test_pictures_are_there_and_small(picture: str) -> None:
    """They are shown, and don't weigh on a clone."""
    assert 500 < (worker.ROOT / picture).stat().st_size < 100_000


@pytest.mark.parametrize("name", FLOWS)
def test_flow_of_the_readme_passes_the_linter(tmp_path: Any, name: str) -> None:
    """Windmill's own schema of flows takes it."""
    windmill_cli.need_node()
    repository = windmill_cli.copy_repository(tmp_path / "repository")
    flow = repository / "f" / "kustomer" / "record__flow"
    flow.mkdir()
    (flow / "flow.yaml").write_text(yaml.safe_dump(FLOWS[name]), encoding="utf-8")
    windmill_cli.run("wmill lint --fail-on-warn", repository, tmp_path)


def test_step_of_the_front_page_records_a_message_once(kustomer: Kustomer, auth: Body) -> None:
    """Its expression gives a body that the step takes, and that finds itself again."""
    given = {"id": "chat-7/12", "from": "ada@example.com", "text": "Hello"}
    body = body_of("record_message", given)
    first, second = (record_message.main(auth, body) for _ in range(2))  # type: ignore[arg-type]
    assert (first["message"]["created"], second["message"]["created"]) == (True, False)
    assert [each["id"] for each in kustomer.messages] == [first["message"]["id"]] == [second["message"]["id"]]


def test_flow_of_the_readme_records_a_message_once(kustomer: Kustomer, auth: Body) -> None:
    """Its expression gives a body that the step takes, and that finds itself again."""
    given = {
        "conversation": kustomer.conversation,
        "customer": kustomer.customer,
        "subject": "Order 1042",
        "text": "Hello" * 5_000,
        "message_id": "<CAF1042@mail.acme.example>",
    }
    assert set(given) == set(FLOWS["create_message"]["schema"]["order"])
    body = body_of("create_message", given)
    assert main(auth, body)["data"]["id"] == main(auth, body)["data"]["id"]  # type: ignore[arg-type]
    assert len(kustomer.messages) == 1


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("name", FLOWS)
def test_flow_of_the_readme_keeps_text_from_outside_text(name: str, reference: str) -> None:
    """Whoever writes to the team reads no variable of the workspace."""
    inputs_of_flow = {"record_message": ["id", "from", "text"], "create_message": ["message_id", "subject", "text"]}[
        name
    ]
    for outside in inputs_of_flow:
        body = body_of(name, {**dict.fromkeys(inputs_of_flow, "x"), outside: reference})
        assert f" {reference}" in body.values()
        assert reference not in body.values()


def test_text_of_the_readme_s_flow_fits_with_a_blank_in_front() -> None:
    """The longest text is one that begins like a reference."""
    body = body_of("create_message", {"conversation": "c" * 24, "message_id": "m", "text": "$var:" + "x" * 20_000})
    assert inputs.check(body, Message)[1] == []


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("retryable", [True, False])
def test_flow_of_the_readme_retries_only_what_is_safe(
    kustomer: Kustomer, auth: Body, message: Body, retryable: bool, name: str
) -> None:
    """retry_if reads what the step raises."""
    kustomer.fault(Fault.answer(429, headers={"Retry-After": "600"}) if retryable else Fault.close())
    with pytest.raises(errors.KustomerError) as raised:
        main(auth, message)  # type: ignore[arg-type]
    retry = step_of(name)["retry"]
    assert retry | RETRY == retry
    retry_if = retry["retry_if"]["expr"]
    assert windmill_cli.evaluate(retry_if, error={"extra": vars(raised.value)}) is retryable
    assert windmill_cli.evaluate(retry_if, error={"name": "ExecutionErr"}) is False

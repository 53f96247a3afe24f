"""The flow gives each of its steps what that step takes, asks for what it uses, and says how to fill it in."""

import functools
import importlib
import importlib.util
import inspect
import itertools
import json
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

import pytest

from f.kustomer.create_message import Message
from f.kustomer.inputs import Node, check
from f.kustomer.record_message__flow.check_input import Event
from tests import windmill_cli
from tests.standin import flow as standin
from tests.standin import worker
from tests.standin.windmill_flows import deployed
from tests.test_errors import every_error

Body = dict[str, Any]

FOLDER = windmill_cli.ROOT / "f" / "kustomer" / "record_message__flow"
FLOW: Body = windmill_cli.read_yaml(FOLDER / "flow.yaml")
INPUTS: dict[str, Body] = FLOW["schema"]["properties"]
REQUIRED: list[str] = FLOW["schema"]["required"]
STEPS = list(standin.steps(FLOW))
SCRIPTS = [step for step in STEPS if step.type == "script"]

AN_ID = "65a1b2c3d4e5f60718293a4f"
A_LINK = "https://files.acme.example/invoice.pdf"
# What stands for each input in the form, or for those without an example one that is right.
EXAMPLES: Body = {
    **{name: each["description"].partition("Example: ")[2] for name, each in INPUTS.items()},
    "auth": {"apiKey": "key-of-the-test"},
    "channel": "email",
    "direction": "out",
    "files": [A_LINK],
}
NEEDED = {name: EXAMPLES[name] for name in (*REQUIRED, "email")}
# Every way to name a file.
FILES: dict[str, Any] = {
    "a link": A_LINK,
    "a file from the form": {"s3": "windmill_uploads/1042", "filename": "invoice.pdf"},
    "a file from another storage": {"s3": "invoice.pdf", "storage": "archive"},
    "content": {"content": "aGVsbG8="},
    "content with a name": {"content": "aGVsbG8=", "name": "invoice.pdf", "contentType": "application/pdf"},
    "a link with a name": {"externalUrl": A_LINK, "name": "invoice.pdf", "contentLength": 48213},
    "what the step takes": {"file": {"s3": "invoice.pdf"}, "name": "invoice.pdf"},
}
RESULTS: Body = {
    "check": None,
    "customer": {"id": AN_ID, "created": True},
    "conversation": {"id": AN_ID, "created": True, "customer": AN_ID},
    "upload": {"_id": AN_ID, "name": "invoice.pdf", "contentType": "application/pdf", "contentLength": 48213},
    "message": {"data": {"id": AN_ID}},
}

# Reads expressions from standard input and writes for each the inputs that it reads.
READ = """
import { readFileSync } from 'node:fs';
import { parse } from 'acorn';
function* nodes(node) {
  if (typeof node?.type === 'string') yield node;
  if (typeof node === 'object') for (const child of Object.values(node ?? {})) yield* nodes(child);
}
const isInput = (node) => node.type === 'Identifier' && node.name === 'flow_input';
const reads = (expr) => {
  const all = [...nodes(parse(`(async () => (${expr}\\n))`, { ecmaVersion: 2023 }))];
  const found = all.filter((node) => node.type === 'MemberExpression' && !node.computed && isInput(node.object));
  if (found.length < all.filter(isInput).length) throw new Error('the input without the name of a field: ' + expr);
  return found.map(({ property }) => property.name);
};
console.log(JSON.stringify(JSON.parse(readFileSync(0, 'utf8')).map(reads)));
"""

each_script = pytest.mark.parametrize("step", SCRIPTS, ids=lambda step: str(step.id))
each_input = pytest.mark.parametrize("name", INPUTS)


@pytest.fixture(autouse=True)
def node() -> None:
    """Every flow has expressions."""
    windmill_cli.need_node()


@pytest.fixture(scope="module")
def read() -> dict[str, set[str]]:
    """The inputs that each step's own expressions read: id -> names."""
    windmill_cli.need_node()
    # The first step takes all inputs, to check them.
    asked = [(step.id, expr) for step in STEPS if step.id != "check" for expr in step.expressions.values()]
    command = [shutil.which("node") or "node", "--input-type=module", "--eval", READ]
    given = json.dumps([expr for _, expr in asked])
    ran = subprocess.run(
        command, cwd=windmill_cli.ROOT / "tests", input=given, capture_output=True, text=True, check=True
    )
    found: dict[str, set[str]] = {step.id: set() for step in STEPS}
    for (step, _), names in zip(asked, json.loads(ran.stdout), strict=True):
        found[step] |= set(names)
    return found


@functools.cache
def failure_module() -> Any:
    """The failure module, imported as a worker does."""
    spec = importlib.util.spec_from_file_location("failure", FOLDER / "failure.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main_of(step: standin.Step) -> Any:
    """What a step calls."""
    return importlib.import_module(str(step.script).replace("/", ".")).main


def bodies(step: str, given: Mapping[str, Any], **results: Any) -> list[Any]:
    """The bodies that a step is given, when all steps before it succeed."""

    def succeed(script: standin.Script, args: Body, env: dict[str, str]) -> worker.Job:
        return worker.Job(True, (RESULTS | results)[env["WM_FLOW_STEP_ID"]], None, "", 0, 0)

    ran = standin.run(FLOW, given, succeed, folder=FOLDER)
    assert ran.ok, ran.result
    return [each.args["body"] for each in ran.jobs if each.step == step]


def subsets(names: set[str]) -> Iterator[Body]:
    """The needed inputs with any of these."""
    optional = sorted(names & INPUTS.keys() - set(REQUIRED))
    for chosen in itertools.product([False, True], repeat=len(optional)):
        given = {name: EXAMPLES[name] for name, is_chosen in zip(optional, chosen, strict=True) if is_chosen}
        yield {name: EXAMPLES[name] for name in REQUIRED} | given


# The steps


@each_script
def test_step_is_a_script_of_this_repository(step: standin.Step) -> None:
    """What is deployed along is what runs."""
    assert (windmill_cli.ROOT / f"{step.script}.py").is_file()
    assert str(step.script).startswith("f/kustomer/")


@each_script
def test_step_gets_what_its_main_takes(step: standin.Step) -> None:
    """Windmill drops an argument that has another name, and gives None for one that is missing."""
    parameters = inspect.signature(main_of(step)).parameters.values()
    needed = {each.name for each in parameters if each.default is each.empty}
    assert needed <= set(step.input_transforms) <= {each.name for each in parameters}


@each_script
def test_step_gets_the_key_as_it_was_given(step: standin.Step) -> None:
    """A plain path hands on a reference to a resource as it is, for Windmill to resolve."""
    assert step.input_transforms["auth"] == {"type": "javascript", "expr": "flow_input.auth"}


def test_failure_module_gets_what_its_main_takes() -> None:
    """It lies in the flow's folder with its lock."""
    failure = STEPS[-1]
    assert (failure.type, (FOLDER / "failure.lock").read_text(encoding="utf-8")) == ("rawscript", "# py: 3.11\n")
    source = (FOLDER / str(failure.script)).read_text(encoding="utf-8")
    assert {name for name, _, _ in worker.parameters(source) or ()} == set(failure.input_transforms)


def test_failure_module_knows_the_steps_before_the_message() -> None:
    """What fails there has sent no message."""
    ids = ["check", *(step.id for step in SCRIPTS)]
    assert tuple(ids[: ids.index("message")]) == failure_module().BEFORE


def test_failure_module_knows_every_error_of_a_step() -> None:
    """For each it says what to do."""
    raised = {each.__name__ for each in every_error()} - {"KustomerError"}
    assert set(failure_module().TO_DO) == raised


@pytest.mark.parametrize("step", STEPS, ids=lambda step: str(step.id))
def test_expression_reads_results_of_steps_that_ran_before(step: standin.Step) -> None:
    """Any other result is null."""
    for where, expr in step.expressions.items():
        assert standin.referenced_results(expr) <= step.scope, where


def test_expressions_read_inputs_of_the_form_and_all_of_them(read: dict[str, set[str]]) -> None:
    """A name that is misspelt is null; an input that nobody reads is asked for in vain."""
    for step in STEPS:
        assert read[step.id] <= INPUTS.keys() | ({"iter"} if step.in_loop else set()), step.id
    assert set().union(*read.values()) - {"iter"} == INPUTS.keys()


def test_bodies_are_what_the_steps_know(read: dict[str, set[str]]) -> None:
    """Whatever is filled in, no field is unknown, wrong or missing."""
    for step in SCRIPTS:
        shape = get_type_hints(main_of(step), include_extras=True)["body"]
        for given in subsets(read[step.id]):
            for body in bodies(step.id, given):
                assert check(body, shape)[2] == [], (step.id, given)


@pytest.mark.parametrize("file", FILES.values(), ids=FILES)
def test_file_is_what_upload_attachment_takes(file: Any) -> None:
    """In every way to name one, alone or in a list."""
    upload = next(step for step in SCRIPTS if step.id == "upload")
    shape = get_type_hints(main_of(upload), include_extras=True)["body"]
    one, many = (bodies("upload", NEEDED | {"files": files}) for files in (file, [file, file]))
    assert [many, many[:1]] == [one * 2, one]
    assert check(one[0], shape)[2] == []
    assert sum(source in one[0] for source in ("file", "content", "externalUrl")) == 1


def test_file_of_the_storage_may_have_a_name_and_a_type() -> None:
    """Where its key says neither."""
    file = {"s3": "inbox/8f3a", "name": "invoice.pdf", "contentType": "application/pdf"}
    [body] = bodies("upload", NEEDED | {"files": [file]})
    assert (body["name"], body["contentType"]) == ("invoice.pdf", "application/pdf")


@pytest.mark.parametrize("files", [None, "", [], [None], ["", None], [{"name": "empty.txt", "content": ""}]])
def test_empty_files_are_none(files: Any) -> None:
    """What a form or a webhook leaves empty is no file."""
    assert bodies("upload", NEEDED | {"files": files}) == []


def test_message_goes_to_the_customer_of_its_conversation() -> None:
    """Whom Kustomer names, else who was found."""
    other = AN_ID[::-1]
    for customer, expected in (other, other), (None, AN_ID):
        conversation = RESULTS["conversation"] | {"customer": customer}
        assert bodies("message", NEEDED, conversation=conversation)[0]["customer"] == expected


def test_what_is_checked_first_is_what_the_form_has() -> None:
    """The same inputs are needed, and the same choices taken, for a webhook as for whoever fills in the form."""
    event = Node(Event)
    schema = FLOW["schema"]
    assert {"auth", *event.fields} == set(schema["properties"])
    assert {"auth", *event.required} == set(schema["required"])
    for name, field in event.fields.items():
        assert list(field.options) == schema["properties"][name].get("enum", []), name


# Retries


@each_script
@pytest.mark.parametrize(
    ("extra", "repeats"),
    [
        ({"extra": {"retryable": True, "status": 400, "outcome": "rejected"}}, True),
        ({"extra": {"retryable": False, "status": 503, "outcome": "not_sent"}}, False),
        ({"extra": {"retryable": "true"}}, False),
        ({"extra": {"status": 503}}, False),
        ({}, False),
    ],
)
def test_step_is_retried_where_its_error_says_so_and_nowhere_else(
    step: standin.Step, extra: Body, repeats: bool
) -> None:
    """A retry outlasts a limit of one minute, and ends after a few."""

    def fail(script: standin.Script, args: Body, env: dict[str, str]) -> worker.Job:
        here = env["WM_FLOW_STEP_ID"]
        if here == step.id:
            return worker.Job(False, None, {"name": "E", "message": "no", "step_id": here} | extra, "", 1, 0)
        return worker.Job(True, RESULTS.get(here), None, "", 0, 0)

    ran = standin.run(FLOW, NEEDED | {"files": [A_LINK]}, fail, folder=FOLDER)
    assert not ran.ok
    assert len(ran.waits) == [each.step for each in ran.jobs].count(step.id) - 1
    assert bool(ran.waits) is repeats
    assert all(60 <= wait <= 120 for wait in ran.waits)
    assert sum(ran.waits) <= 300


# Deploying


def test_linter_finds_nothing(tmp_path: pathlib.Path) -> None:
    """Windmill's own schema of flows takes it, and its lock is there."""
    repository = windmill_cli.copy_repository(tmp_path / "repository")
    windmill_cli.run("wmill lint --fail-on-warn --locks-required", repository, tmp_path)


def test_what_is_deployed_is_what_the_file_says() -> None:
    """Windmill fills in nothing, so that a second push finds nothing to change."""
    assert {key: deployed(FLOW)[key] for key in FLOW} == FLOW


# The form


def test_form_asks_for_what_is_needed_first() -> None:
    """And has every input in order."""
    order = FLOW["schema"]["order"]
    assert order[: len(REQUIRED)] == REQUIRED
    assert sorted(order) == sorted(INPUTS)


@each_input
def test_input_is_described_with_an_example(name: str) -> None:
    """A support engineer learns what to fill in; what is chosen needs no example."""
    field = INPUTS[name]
    assert re.match(r"[A-Za-z]", field["description"])
    assert len(field["description"]) > 20
    chosen = "enum" in field or field["type"] in ("object", "array")
    assert chosen is ("Example: " not in field["description"])
    assert "placeholder" not in field or field["placeholder"] == EXAMPLES[name]


@each_input
def test_input_that_may_stay_empty_is_not_sent_empty(name: str) -> None:
    """A text is left out then, and a choice is not made."""
    field = INPUTS[name]
    if field["type"] == "string" and not field.keys() & {"enum", "format"}:
        assert field.get("nullable", False) is (name not in REQUIRED)
    assert "default" not in field


@pytest.mark.parametrize("name", ["channel", "direction"])
def test_choices_are_those_of_the_step(name: str) -> None:
    """No other can be typed in."""
    assert tuple(INPUTS[name]["enum"]) == Node(Message).fields[name].options
    assert INPUTS[name]["disableCreate"] is True


def test_key_and_files_are_picked_in_windmill() -> None:
    """A resource of the type that the steps take, and files from the object storage."""
    assert INPUTS["auth"]["format"] == f"resource-{get_type_hints(main_of(SCRIPTS[0]))['auth'].__name__}"
    assert INPUTS["files"]["items"] == {"type": "resource", "resourceType": "s3_object"}


def test_form_tells_the_numbers_and_names_that_the_expressions_have() -> None:
    """How much of a long text is recorded, and what an empty field means."""
    body = bodies("message", NEEDED | {"text": "x" * 50_000})[0]
    assert f"the first {body['preview'].count('x'):,} characters" in INPUTS["text"]["description"]
    assert f"Left empty: {body['app']}." in INPUTS["app"]["description"]
    assert f"Left empty: {body['direction']}." in INPUTS["direction"]["description"]

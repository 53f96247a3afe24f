"""The flows carry wires only: each input of a step is a plain path, or all of the flow's inputs through one guard."""

import importlib
import inspect
import json
import pathlib
import re
from typing import Any

import pytest

from f.kustomer.record_message import Event, check_event
from f.kustomer.shared.inputs import check
from tests import form_schema, windmill_cli
from tests.conftest import Body
from tests.record_message.test_event import FULL, NEEDED
from tests.standin.kustomer import Kustomer
from tests.standin.windmill import Workspace
from tests.standin.windmill_flows import deployed

FLOWS = {folder: windmill_cli.read_yaml(windmill_cli.ROOT / folder / "flow.yaml") for folder in form_schema.FLOWS}
FLOW = FLOWS["f/kustomer/record_message__flow"]
# What every step may be given, and the one expression that is more than a path: it keeps text from outside text.
PATH = re.compile(r"flow_input(\.\w+)+")
GUARD = (
    "JSON.parse(JSON.stringify({ ...flow_input, auth: undefined }), "
    "(key, value) => typeof value === 'string' && /^\\$[a-z]/i.test(value) ? ' ' + value : value)"
)
# A retry in the form in which Windmill gives a flow back.
RETRY = {
    "constant": {"attempts": 0, "seconds": 0},
    "exponential": {"attempts": 3, "multiplier": 5, "seconds": 3, "random_factor": 20},
}
# What Windmill would resolve in any argument.
REFERENCES = ["$var:f/kustomer/api_key", "$res:f/kustomer/api", "$WM_TOKEN", "$encrypted:x", "$var:f/not/there"]

each_flow = pytest.mark.parametrize("folder", FLOWS)


def guarded(given: Body) -> Any:
    """What the guard makes of a flow's inputs."""
    return windmill_cli.evaluate(GUARD, flow_input=given)


def resolve(expression: str, given: Body) -> Any:
    """What a step is given by an expression, which is a plain path or the guard."""
    if " ".join(expression.split()) == GUARD:
        return guarded(given)
    assert PATH.fullmatch(expression), expression
    for name in expression.split(".")[1:]:
        given = given[name]
    return given


def arguments(flow: Body, given: Body) -> list[tuple[Any, Body]]:
    """The ``main`` of each step, with what it is given."""
    steps = [module["value"] for module in flow["value"]["modules"]]
    assert {step["type"] for step in steps} == {"script"}
    return [
        (
            importlib.import_module(step["path"].replace("/", ".")).main,
            {name: resolve(each["expr"], given) for name, each in step["input_transforms"].items()},
        )
        for step in steps
    ]


# Wires


@each_flow
def test_step_gets_what_its_main_takes(folder: str) -> None:
    """Windmill drops an argument that has another name, and gives None for one that is missing."""
    for main, given in arguments(FLOWS[folder], {"auth": "$res:f/kustomer/api", **NEEDED}):
        assert set(given) == set(inspect.signature(main).parameters)
        assert given["auth"] == "$res:f/kustomer/api"


def test_step_gets_every_input_of_the_form() -> None:
    """As its body, in which nothing is unknown, wrong or missing."""
    given = {"auth": {"apiKey": "k"}, **FULL}
    assert given.keys() == FLOW["schema"]["properties"].keys()
    ((_, told),) = arguments(FLOW, given)
    assert told == {"auth": given["auth"], "body": FULL}
    assert check(told["body"], Event, limit=None)[1] == []


def test_flow_is_one_step_with_nothing_beside_it() -> None:
    """So that its error is the step's own."""
    assert FLOW["value"].keys() == {"modules"}
    assert [module["value"]["path"] for module in FLOW["value"]["modules"]] == ["f/kustomer/record_message"]


# The guard


@pytest.mark.parametrize("reference", REFERENCES)
def test_text_that_windmill_would_resolve_gets_a_blank_in_front(reference: str) -> None:
    """At any depth, so that nobody gets a secret of the workspace onto a timeline by writing its name."""
    given = {
        "auth": reference,
        "text": reference,
        "files": [reference, {"name": reference, "file": {"s3": reference}}],
        "meta": {"a": {"b": [[reference, {"c": reference}]]}},
    }
    shown = f" {reference}"
    assert guarded(given) == {
        "text": shown,
        "files": [shown, {"name": shown, "file": {"s3": shown}}],
        "meta": {"a": {"b": [[shown, {"c": shown}]]}},
    }
    workspace = Workspace()
    assert workspace.resolve(guarded(given)) == guarded(given)


@pytest.mark.parametrize(
    "value",
    [
        "$5.00",
        "$",
        "$ res:f/kustomer/api",
        "costs $var:f/x",
        "{$var:f/x}",
        "",
        None,
        0,
        False,
        [],
        {},
        {"toJSON": "x", "__proto__": "y", "constructor": {"prototype": 1}},
        "\u2028\\\"'`${process.exit(1)}",
        "\ud83d\ude00 \ud83d",
        "x" * 100_000,
        {"then": [1, 2.5, "a\0b"]},
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_everything_else_passes_the_guard_as_it_is(value: object) -> None:
    """Whatever somebody may write."""
    given = json.loads(json.dumps({"text": value, "files": [value], "meta": {"a": value}}))
    assert guarded(given | {"auth": {"apiKey": "k"}}) == given


@pytest.mark.parametrize("reference", REFERENCES)
def test_reference_in_a_message_is_recorded_as_text(kustomer: Kustomer, auth: Body, reference: str) -> None:
    """From the flow's inputs to the timeline, through Windmill's own replacing."""
    workspace = Workspace()
    workspace.hold("variables", "f/kustomer/api_key", {"value": auth["apiKey"]})
    workspace.hold("resources", "f/kustomer/api", {"value": auth | {"apiKey": "$var:f/kustomer/api_key"}})
    written = dict.fromkeys(("text", "subject", "name", "messageId", "threadId", "app"), reference)
    files = [{"content": "aGVsbG8=", "name": reference}]
    given = {"auth": "$res:f/kustomer/api", **NEEDED, **written, "files": files, "meta": {"a": reference}}
    ((main, told),) = arguments(FLOW, given)
    main(**workspace.resolve(told))
    (message,) = kustomer.messages
    told = message["attributes"]
    shown = [told["preview"], told["subject"], told["app"], told["attachments"][0]["name"], told["meta"]["a"]]
    assert shown == [f" {reference}"] * len(shown)
    assert told["externalId"] == reference


@pytest.mark.parametrize("file", [{"s3": REFERENCES[0]}, {"content": REFERENCES[0]}, REFERENCES[0]], ids=str)
def test_reference_in_place_of_a_file_is_not_resolved(file: object) -> None:
    """It is refused, or names no file."""
    event, wrong = check_event(guarded({**NEEDED, "files": [file]}))
    assert wrong or event["files"] == [{"file": {"s3": f" {REFERENCES[0]}"}}]


# Retries


@pytest.mark.parametrize(
    ("error", "repeats"),
    [
        ({"extra": {"retryable": True, "status": 400, "outcome": "rejected"}}, True),
        ({"extra": {"retryable": False, "status": 503, "outcome": "not_sent"}}, False),
        ({"extra": {"retryable": "true"}}, False),
        ({"extra": {"status": 503}}, False),
        ({}, False),
        (None, False),
    ],
)
@each_flow
def test_step_is_retried_where_its_error_says_so_and_nowhere_else(folder: str, error: Any, repeats: bool) -> None:
    """A retry outlasts a limit of one minute, and ends after a few."""
    for module in FLOWS[folder]["value"]["modules"]:
        retry = module["retry"]
        assert windmill_cli.evaluate(retry["retry_if"]["expr"], error=error) is repeats
        assert retry | RETRY == retry


# Deploying


def test_linter_finds_nothing(tmp_path: pathlib.Path) -> None:
    """Windmill's own schema of flows takes them."""
    windmill_cli.need_node()
    repository = windmill_cli.copy_repository(tmp_path / "repository")
    windmill_cli.run("wmill lint --fail-on-warn --locks-required", repository, tmp_path)


@each_flow
def test_what_is_deployed_is_what_the_file_says(folder: str) -> None:
    """Windmill fills in nothing, so that a second push finds nothing to change."""
    flow = FLOWS[folder]
    assert {key: deployed(flow)[key] for key in flow} == flow


# The form


@each_flow
def test_committed_form_is_the_one_of_the_step(folder: str) -> None:
    """Whoever changes a type, a description or a limit of the step runs `make schema`."""
    main = importlib.import_module(form_schema.FLOWS[folder]).main
    assert FLOWS[folder]["schema"] == form_schema.flow_schema(main)


def test_form_asks_for_what_is_needed_first() -> None:
    """And has a picker for the key, and one for files of the object storage."""
    schema = FLOW["schema"]
    assert schema["order"][:3] == schema["required"] == ["auth", "channel", "messageId"]
    assert schema["properties"]["auth"]["format"] == "resource-kustomer"
    assert schema["properties"]["files"]["items"] == {"type": "resource", "resourceType": "s3_object"}


def test_form_tells_the_numbers_and_names_that_the_step_has() -> None:
    """How much of a long text is recorded, and what an empty field means."""
    from f.kustomer.record_message import message_of

    message, inputs = message_of({**NEEDED, "text": "x" * 50_000}), FLOW["schema"]["properties"]
    assert f"cut to {len(message['preview']):,} characters" in inputs["text"]["description"]
    assert f"Left empty: {message['app']}." in inputs["app"]["description"]
    assert f"Left empty: {message['direction']}." in inputs["direction"]["description"]

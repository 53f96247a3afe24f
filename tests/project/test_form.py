"""The forms that Windmill draws say what the types say, and what Kustomer's published rules say."""

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from f.kustomer.create_message import Message
from f.kustomer.shared.inputs import Node, check
from tests import form_schema, lock, windmill_cli
from tests.conftest import Body, Step
from tests.standin.kustomer import Kustomer
from tests.standin.worker import ROOT

Schema = dict[str, Any]

# Every form by the step or flow that it belongs to.
FORMS: dict[str, Schema] = {
    **{script.stem: windmill_cli.read_yaml(script.with_suffix(".script.yaml"))["schema"] for script in lock.STEPS},
    "record_message__flow": windmill_cli.read_yaml(ROOT / "f/kustomer/record_message__flow/flow.yaml")["schema"],
}
BODY: Schema = FORMS["create_message"]["properties"]["body"]
PUBLISHED: Schema = json.loads((ROOT / "tests/standin/create-message.schema.json").read_text(encoding="utf-8"))


def objects(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every object of a form that has fields, with its path."""
    if "properties" in schema:
        yield path, schema
        for name, each in schema["properties"].items():
            yield from objects(each, f"{path}.{name}")
    if "items" in schema:
        yield from objects(schema["items"], f"{path}[]")


OBJECTS = [each for step, schema in FORMS.items() for each in objects(schema, step)]
FIELDS = [
    (f"{path}.{name}", field)
    for path, shape in OBJECTS
    for name, field in shape["properties"].items()
    if name not in ("auth", "body")
]
every_field = pytest.mark.parametrize(("path", "field"), FIELDS, ids=[path for path, _ in FIELDS])
every_object = pytest.mark.parametrize(("path", "shape"), OBJECTS, ids=[path for path, _ in OBJECTS])

OF_A_MESSAGE = [each for each in FIELDS if each[0].startswith("create_message.body.")]
every_field_of_a_message = pytest.mark.parametrize(
    ("path", "field"), OF_A_MESSAGE, ids=[path for path, _ in OF_A_MESSAGE]
)


@pytest.mark.parametrize("script", lock.SCRIPTS, ids=lambda script: str(script.stem))
def test_committed_form_is_the_one_of_the_types(script: Any) -> None:
    """Whoever changes a type, a description or a limit runs `make schema`."""
    assert windmill_cli.read_yaml(script.with_suffix(".script.yaml")) == form_schema.metadata(script)


@every_field
def test_field_is_described_with_an_example(path: str, field: Schema) -> None:
    """A support engineer learns what to fill in; what is chosen, switched or dropped on the form needs no example."""
    description = field["description"]
    assert re.match(r"[A-Za-z0-9-]", description)
    assert len(description) > 4
    chosen = "enum" in field or field["type"] == "boolean"
    dropped = "contentEncoding" in field or "s3_object" in json.dumps(field)
    assert chosen or dropped or "Example: " in description


@every_object
def test_object_has_its_fields_in_order_and_says_which_are_required(path: str, shape: Schema) -> None:
    """Windmill sorts fields by name where it isn't told otherwise."""
    assert sorted(shape["order"]) == sorted(shape["properties"])
    assert set(shape["required"]) <= set(shape["properties"])


@every_object
def test_condition_looks_at_fields_beside_it(path: str, shape: Schema) -> None:
    """A field that depends on one which isn't there would never appear."""
    for name, field in shape["properties"].items():
        seen = set(re.findall(r"fields\.(\w+)", field.get("showExpr", "")))
        assert seen <= set(shape["properties"]) - ({name} if name != "lang" else set()), path


@every_field
def test_form_knows_no_slider(path: str, field: Schema) -> None:
    """A number with both a least and a greatest value breaks Windmill's form while it is empty."""
    assert not {"min", "max"} <= field.keys()


@every_field
def test_text_that_may_stay_empty_is_nullable(path: str, field: Schema) -> None:
    """Untouched, it is then left out instead of sent as an empty text."""
    place, _, name = path.rpartition(".")
    if "placeholder" in field and field["type"] == "string" and name not in dict(OBJECTS)[place]["required"]:
        assert field.get("nullable") or field.get("required")


def test_no_list_of_choices_takes_anything_else() -> None:
    """Kustomer's enumerations are closed."""
    assert [path for path, field in FIELDS if "enum" in field and field.get("disableCreate") is not True] == []


def test_everyday_fields_come_first_and_rare_ones_are_hidden() -> None:
    """A message takes six fields; an import, a failure or a routing shows its own when it is the case."""
    order = BODY["order"]
    assert order[:8] == ["channel", "direction", "app", "conversation", "customer", "preview", "subject", "externalId"]
    hidden = {name for name, field in BODY["properties"].items() if "showExpr" in field}
    assert {"error", "errorAt", "reference", "createdAt", "createdBy", "modifiedAt", "modifiedBy", "id"} <= hidden
    assert len(set(order) - hidden) <= 16
    assert BODY["properties"]["reference"]["showExpr"] == "fields.channel === 'email'"
    assert BODY["properties"]["error"]["showExpr"] == BODY["properties"]["errorAt"]["showExpr"]
    assert BODY["properties"]["error"]["showExpr"] == "fields.status === 'error'"


@every_object
def test_untouched_object_asks_for_nothing(path: str, shape: Schema) -> None:
    """In an optional object, a required choice would be preselected, and half an object sent that nobody touched."""
    if path.count(".") > 1:
        assert [n for n in shape["required"] if "showExpr" not in shape["properties"][n] and "[]" not in path] == []


# What Windmill's form component (windmill-components 1.655.2) submitted, untouched but for a text in app.
UNTOUCHED = {
    "channel": "email",
    "direction": "in",
    "app": "acme-inbox",
    "attachments": [],
    "auto": False,
    "location": {},
    "reference": {},
}


def test_untouched_form_is_a_small_message(kustomer: Kustomer, run: Step) -> None:
    """Only what somebody chose is sent, and the switch that can't be told from an untouched one."""
    assert run(UNTOUCHED).stored == 1
    assert json.loads(kustomer.posts[0].body) == {
        "channel": "email",
        "direction": "in",
        "app": "acme-inbox",
        "auto": False,
    }


def test_form_is_honest_about_delivery() -> None:
    """Nobody takes it for a way to send something."""
    assert "delivers nothing to the customer" in BODY["description"]


def test_form_has_exactly_the_published_fields() -> None:
    """Every field that Kustomer takes can be filled in, at every level, and no other."""
    for path, shape in objects(BODY, "create_message.body"):
        published = _published(path)
        assert set(shape["properties"]) == set(published["properties"]), path


@every_field_of_a_message
def test_field_is_as_published(path: str, field: Schema) -> None:
    """Types, choices, formats and limits are Kustomer's; a limit without a keyword in the form is said in words."""
    published = _published(path)
    kinds = published.get("type", "array")
    assert field["type"] == (kinds[0] if isinstance(kinds, list) else kinds)
    assert field.get("enum") == (published.get("enum") if kinds == "string" else None)
    assert field.get("format") == ("date-time" if published.get("format") == "date-time" else None)
    assert ("pattern" in field) == (published.get("format") == "object-id" or "minLength" in published)
    if (limit := published.get("maxLength") or published.get("maxProperties")) and "minLength" not in published:
        assert f"At most {limit:,} " in field["description"]


def _published(path: str) -> Schema:
    shape = PUBLISHED
    for name in path.split(".")[2:]:
        shape = shape["properties"][name.removesuffix("[]")]
        if name.endswith("[]"):
            shape = shape["anyOf"][0]["items"]
    return shape


def test_examples_of_all_fields_make_a_valid_message(kustomer: Kustomer, run: Step) -> None:
    """What the form shows as an example is right, at every level."""
    message = _examples(Node(Message))
    assert len(message) == 32
    assert check(message, Message)[1] == []
    assert run(message, apiKey=kustomer.keys["admin"]).stored == 1


@pytest.mark.parametrize(("step", "shape"), [("find_customer", "Customer"), ("find_conversation", "Conversation")])
def test_examples_of_all_fields_are_right(step: str, shape: str, kustomer: Kustomer, auth: Body) -> None:
    """The other steps' examples are, too."""
    module = importlib.import_module(f"f.kustomer.{step}")
    examples = _examples(Node(getattr(module, shape)))
    if "customer" in examples:
        examples["customer"] = kustomer.customer
    assert module.main(auth, examples)["id"]


def test_form_of_an_event_knows_what_a_message_s_knows() -> None:
    """What can be chosen for a message can be chosen for record_message, and in the same words."""
    event = FORMS["record_message"]["properties"]["body"]["properties"]
    for name in ("channel", "direction"):
        assert event[name]["enum"] == BODY["properties"][name]["enum"]
    assert (event["meta"], event["custom"]) == (BODY["properties"]["meta"], BODY["properties"]["custom"])


def _examples(node: Node) -> Body:
    return {name: _examples(each) if each.fields else each.about["example"] for name, each in node.fields.items()}

"""Writes every ``f/kustomer/*.script.yaml`` (`make schema`): names from the docstring, the form from main's types.

A flow that hands its inputs to one step has the form of that step.

The form's dialect is Windmill's, not the whole of JSON Schema:
https://www.windmill.dev/docs/core_concepts/json_schema_and_parsing
"""

import importlib
import inspect
import json
import pathlib
import shutil
import sys
import tempfile
from typing import Any, get_type_hints

import yaml

from f.kustomer.shared.inputs import Node
from tests import windmill_cli
from tests.lock import ROOT, SCRIPTS
from tests.standin.windmill import Workspace

# The flows that take what one step takes, and which.
FLOWS = {"f/kustomer/record_message__flow": "f.kustomer.record_message"}

# The form's word for each kind of a node; what is none of these is an object.
_TYPES = {"text": "string", "a number": "number", "true or false": "boolean", "a list": "array"}
# What a Field says that is no key of Windmill's dialect; all else is.
_OURS = {"description", "example", "required", "max_length", "ge", "le", "closed", "tidy", "check"}


def metadata(script: pathlib.Path) -> dict[str, Any]:
    """Returns what Windmill knows of a script besides its text: summary, description, lock, kind and schema."""
    module = importlib.import_module(".".join(script.relative_to(ROOT).with_suffix("").parts))
    summary, description, *_ = str(inspect.getdoc(module)).split("\n\n")
    return {
        "summary": summary.rstrip("."),
        "description": " ".join(description.split()),
        "lock": f"!inline {script.relative_to(ROOT).with_suffix('.script.lock')}",
        "kind": "script",
        "schema": _schema(getattr(module, "main", None)),
    }


def flow_schema(main: Any) -> dict[str, Any]:
    """Return the form of a flow that hands all of its inputs to the one step whose ``main`` this is, as its body."""
    auth, body = _schema(main)["properties"].values()
    del auth["default"]  # the CLI's, for a script
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "order": ["auth", *body["order"]],
        "properties": {"auth": auth, **body["properties"]},
        "required": ["auth", *body["required"]],
    }


def import_schema() -> dict[str, Any]:
    """Return the form of the flow import_history: that of its step, but for what the flow says, and its workers."""
    found = flow_schema(importlib.import_module("f.kustomer.import_messages").main)
    for name in ("content", "name", "check", "part"):
        found["order"].remove(name)
        del found["properties"][name]
    del found["properties"]["file"]["showExpr"]  # there is nothing else to give
    workers = {
        "type": "integer",
        "description": "How many parts are imported at once. All together leave the same share of requests to others. "
        "Example: 5",
        "default": 5,
        "placeholder": "5",
        "min": 1,
    }
    found["properties"]["workers"] = workers
    found["order"].insert(found["order"].index("keep"), "workers")
    return found | {"required": ["auth", "file", "app", "workers"]}


def flow_schemas() -> dict[str, dict[str, Any]]:
    """Return the form of each flow, by its folder."""
    found = {flow: flow_schema(importlib.import_module(step).main) for flow, step in FLOWS.items()}
    return {**found, "f/kustomer/import_history__flow": import_schema()}


def _schema(main: Any) -> dict[str, Any]:
    hints = get_type_hints(main, include_extras=True) if main else {}
    names = [name for name in hints if name != "return"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "order": names,
        "properties": {name: _parameter(hints[name]) for name in names},
        "required": names,
    }


def _parameter(hint: type) -> dict[str, Any]:
    described = {"type": "object", "description": " ".join(str(inspect.getdoc(hint)).split()), "default": None}
    if hint.__name__.islower():  # named like a resource type
        return {**described, "format": f"resource-{hint.__name__}"}
    return {**described, **_object(Node(hint), inner=False)}


def _object(node: Node, *, inner: bool) -> dict[str, Any]:
    # An optional object asks for nothing until something in it is filled in and reveals what goes with it: a required
    # enumeration that is always shown would be preselected, and half fill an object which nobody touched.
    revealed = {name for name, each in node.fields.items() if "showExpr" in each.about}
    required = [name for name in node.fields if name in (node.required & revealed if inner else node.required)]
    properties = {name: _property(each, name in required) for name, each in node.fields.items()}
    return {"type": "object", "order": list(properties), "properties": properties, "required": required}


def _property(node: Node, required: bool) -> dict[str, Any]:
    kind = _TYPES.get(node.kind, "object")
    found: dict[str, Any] = {"type": kind, "description": _description(node)}
    found |= {key: value for key, value in node.about.items() if key not in _OURS}
    if node.options:
        found |= {"enum": list(node.options), "disableCreate": True}
    elif kind == "string" and not found.keys() & {"format", "contentEncoding"}:
        found |= {"placeholder": _example(node)} | ({} if required else {"nullable": True})
    elif kind == "number":
        found |= {"placeholder": _example(node)}
    elif node.item:
        found.setdefault("items", _item(node.item))
    elif node.fields and "format" not in found:
        found |= _object(node, inner=True)
    return found


def _item(node: Node) -> dict[str, Any]:
    if not node.fields:
        return {key: value for key, value in _property(node, True).items() if key != "description"}
    shape = _object(node, inner=False)
    # In a list the form reads required from each property: the list beside them is ignored.
    for name in shape["required"]:
        shape["properties"][name]["required"] = True
    return shape


def _description(node: Node) -> str:
    words = [node.about.get("description", "")]
    if (limit := node.about.get("max_length")) and "pattern" not in node.about:
        words.append(f"At most {limit:,} {'keys' if node.free_form else 'characters'}.")
    if (example := _example(node)) and not node.options and node.kind != "true or false":
        words.append(f"Example: {example}")
    return " ".join(filter(None, words))


def _example(node: Node) -> str:
    example = node.about.get("example", "")
    return example if isinstance(example, str) else json.dumps(example, ensure_ascii=False)


def write() -> None:
    """Writes every metadata file, in the text that Windmill's CLI gives it, and wmill-lock.yaml with the new hashes."""
    if not shutil.which("npm"):
        sys.exit(windmill_cli.NODE_NEEDED)
    for script in SCRIPTS:
        script.with_suffix(".script.yaml").write_text(json.dumps(metadata(script)), encoding="utf-8")
    for flow, form in flow_schemas().items():
        text, _, _ = (file := ROOT / flow / "flow.yaml").read_text(encoding="utf-8").partition("\nschema:\n")
        told = yaml.safe_dump({"schema": form}, sort_keys=False, allow_unicode=True, width=118)
        file.write_text(f"{text}\n{told}", encoding="utf-8")
    windmill_cli.make_stale(ROOT)
    with Workspace() as workspace, tempfile.TemporaryDirectory() as home:
        for command in f"{windmill_cli.INFER} {windmill_cli.at(workspace)}", windmill_cli.REHASH:
            windmill_cli.run(command, ROOT, pathlib.Path(home))


if __name__ == "__main__":
    write()

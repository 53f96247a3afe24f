"""What a workspace in use holds, and what becomes of a job's arguments that name some of it."""

import re
from collections.abc import Mapping
from typing import Any

Item = dict[str, Any]
Holdings = dict[str, dict[str, Item]]

# Whoever uses the workspace's token.
DEPLOYER = "u/deployer"

# What the Hub's integration registers under the same name: the key and nothing else.
HUB_RESOURCE_TYPE: Item = {
    "description": "Kustomer, from the Hub",
    "schema": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"apiKey": {"type": "string", "description": ""}},
        "required": ["apiKey"],
    },
}

_RESERVED = re.compile(r"\$(WM_[A-Z_]+)")


def resolved(value: Any, held: Holdings, reserved: Mapping[str, str]) -> Any:
    """A job's arguments as the job gets them: references in them are replaced, at any depth.

    A string is a reference as a whole: `$res:<path>`, `$var:<path>`, or `$` and the name of a reserved variable,
    which is empty unless `reserved` has it. LookupError: the workspace doesn't hold what a reference names.

    https://www.windmill.dev/docs/core_concepts/resources_and_types
    https://www.windmill.dev/docs/core_concepts/variables_and_secrets
    """
    match value:
        case dict():
            return {key: resolved(inner, held, reserved) for key, inner in value.items()}
        case list():
            return [resolved(inner, held, reserved) for inner in value]
        case str() if value.startswith("$res:"):
            return resolved(_held(held, "resources", value.removeprefix("$res:")), held, reserved)
        case str() if value.startswith("$var:"):
            return _held(held, "variables", value.removeprefix("$var:"))
        case str() if name := _RESERVED.fullmatch(value):
            return reserved.get(name[1], "")
    return value


def _held(held: Holdings, kind: str, path: str) -> Any:
    if path not in held[kind]:
        raise LookupError(f"no {path} among the {kind} of the workspace")
    return held[kind][path]["value"]


def _script(path: str, content: str, **more: Any) -> Item:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {},
        "required": [],
    }
    return {
        "path": path,
        "content": content,
        "language": "python3",
        "summary": "",
        "description": "",
        "kind": "script",
        "lock": "# py: 3.11\n",
        "schema": schema,
        "hash": "0123456789abcdef",
        "extra_perms": {},
    } | more


def other_peoples_work() -> Holdings:
    """A workspace in use: kind -> path or name -> item."""
    return {
        "folders": {
            "kustomer": {
                "display_name": "Kustomer (support tooling)",
                "summary": "Ask #support-tooling before changing anything",
                "owners": ["u/alice", "g/support"],
                "extra_perms": {"u/alice": True, "g/support": True, "g/all": False, DEPLOYER: True},
            },
            "billing": {
                "display_name": "billing",
                "summary": None,
                "owners": ["u/bob"],
                "extra_perms": {"u/bob": True},
            },
        },
        "scripts": {
            path: _script(path, content, summary=summary, extra_perms=extra_perms)
            for path, summary, extra_perms, content in (
                (
                    "f/kustomer/nightly_report",
                    "Nightly report",
                    {"g/all": False},
                    "def main():\n    return 1\n",
                ),
                ("f/billing/invoice", "Invoice", {}, "def main():\n    return 2\n"),
            )
        },
        "flows": {
            "f/kustomer/escalation": {
                "path": "f/kustomer/escalation",
                "summary": "Escalation",
                "description": "",
                "value": {"modules": []},
                "schema": {"type": "object", "properties": {}, "required": []},
            }
        },
        "resources": {
            path: {"path": path, "description": "", "resource_type": kind, "value": value}
            for path, kind, value in (
                ("f/kustomer/api", "kustomer", {"apiKey": "$var:f/kustomer/api_key"}),
                ("f/billing/stripe", "stripe", {"token": "$var:f/billing/stripe_token"}),
            )
        },
        "variables": {
            path: {"path": path, "description": "", "is_secret": secret, "value": value}
            for path, secret, value in (
                ("f/kustomer/api_key", True, "encrypted"),
                ("f/kustomer/region", False, "us"),
                ("f/billing/stripe_token", True, "encrypted"),
            )
        },
        "resource_types": {
            "erp": {
                "description": "Our ERP",
                "schema": {
                    "type": "object",
                    "properties": {"host": {"type": "string"}},
                    "required": ["host"],
                },
            }
        },
        # Exported to admins only, so the CLI of a developer never sees them there.
        "dependencies": {"default": {"language": "python3", "content": "requests==2.31.0\n"}},
        "schedules": {
            "f/kustomer/nightly_report": {
                "path": "f/kustomer/nightly_report",
                "schedule": "0 0 3 * * *",
                "timezone": "UTC",
                "enabled": True,
                "script_path": "f/kustomer/nightly_report",
                "is_flow": False,
                "args": {},
            }
        },
    }

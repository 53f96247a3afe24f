"""Check connection.

Tells whether a Kustomer key works, whose it is, and which of these steps it may run. It changes nothing. The call is
that of https://developer.kustomer.com/docs/get-started/quickstart
"""

import base64
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from f.kustomer.shared.client import RecordKind, dig, from_json, kustomer, start


class Need(NamedTuple):
    """Something that a step does: any one of ``roles`` allows it, and the first is the one to ask for."""

    use: str
    roles: tuple[str, ...]


# Roles: the pages of the calls under https://developer.kustomer.com/api/core-resources
RECORD = Need("record a message", ("org.permission.message.create", "org.user.message.write"))
LOOK = Need(
    "see what is recorded already, so that a second run records nothing twice",
    ("org.permission.message.read", "org.user.message.read"),
)
UPLOAD = Need(
    "make an attachment",
    (
        "org.permission.message.create",
        "org.user.message.write",
        "org.permission.note.create",
        "org.user.note.write",
    ),
)
FIND = Need("look for a customer", ("org.permission.customer.read", "org.user.customer.read"))
ADD = Need("make a new customer", ("org.permission.customer.create", "org.user.customer.write"))
THREAD = Need("look for a conversation", ("org.permission.conversation.read", "org.user.conversation.read"))
OPEN = Need("make a new conversation", ("org.permission.conversation.create", "org.user.conversation.write"))
JOBS = Need("read what became of bulk jobs", ("org.permission.bulk.read", "org.user.bulk.read"))
DATES = Need("give old messages their own dates", ("org.admin",))
# What each step can't do without, and what it can.
STEPS: dict[str, tuple[list[Need], list[Need]]] = {
    "check_connection": ([], []),
    "create_message": ([RECORD], [LOOK]),
    "find_conversation": ([THREAD], [OPEN]),
    "find_customer": ([FIND], [ADD]),
    "import_messages": ([FIND, ADD, THREAD, OPEN, RECORD, LOOK, JOBS, DATES], []),
    "import_report": ([], []),
    "record_message": ([FIND, ADD, THREAD, OPEN, RECORD], [LOOK]),
    "upload_attachment": ([UPLOAD], []),
}

KEY = RecordKind("key", not_sent_text="Nothing was changed.")


def main(auth: kustomer) -> dict[str, Any]:
    """Read what Kustomer knows of a key; any valid one will do.

    Return ``name``, ``organisation`` (``{id, name}``), ``user`` (an id), ``host``, ``expires`` (ISO 8601), ``roles``,
    ``steps`` (each ``{step, may_run, missing}``, where ``missing`` are ``{role, use}``: what the key doesn't allow),
    ``limit`` (``{requests, left}``, those a minute of the whole organisation) and ``details`` (what else Kustomer says,
    in its own words). What nobody says is None. Raise the KustomerErrors of f.kustomer.shared.errors.
    """
    run = start(auth, KEY)
    answer = run.read("/v1/auth/tokens/current")
    told, claims = _told(answer.data, run.to.key), _claims(run.to.key)
    given = told.pop("roles", None)
    roles = [role for role in given if isinstance(role, str)] if isinstance(given, list) else None
    return {
        "name": told.pop("name", None),
        "organisation": {"id": _related(answer.data, "org") or claims.get("org"), "name": claims.get("orgName")},
        "user": _related(answer.data, "user"),
        "host": run.to.base,
        "expires": _moment(claims.get("exp")),
        "roles": roles,
        "steps": None if roles is None else list(_steps(roles)),
        "limit": {
            "requests": _count(answer.headers.get("x-ratelimit-limit")),
            "left": _count(answer.headers.get("x-ratelimit-remaining")),
        },
        "details": told,
    }


def _told(data: Any, key: str) -> dict[str, Any]:
    """Return what Kustomer says of a key, but for what shows the key or its end."""
    said = dig(data, "data", "attributes")
    pairs = said.items() if isinstance(said, dict) else ()
    return {name: each for name, each in pairs if name != "lastTokenChars" and key not in str(each)}


def _steps(roles: list[str]) -> Iterator[dict[str, Any]]:
    for step, (needed, useful) in STEPS.items():
        missing = _missing(needed, roles)
        yield {
            "step": f"f/kustomer/{step}",
            "may_run": not missing,
            "missing": [{"role": need.roles[0], "use": need.use} for need in missing + _missing(useful, roles)],
        }


def _missing(needs: list[Need], roles: list[str]) -> list[Need]:
    return [need for need in needs if not any(_covers(role, one) for role in roles for one in need.roles)]


def _covers(role: str, needed: str) -> bool:
    """Tell whether a role gives what another does: older ones, such as org or org.user, hold those below them."""
    return needed == role or needed.startswith(f"{role}.")


def _claims(key: str) -> dict[str, Any]:
    """Read what a key says of itself, if it is a JSON Web Token: https://www.rfc-editor.org/rfc/rfc7519."""
    with suppress(ValueError, IndexError):
        claims = from_json(base64.urlsafe_b64decode(key.split(".")[1] + "=="))
        return claims if isinstance(claims, dict) else {}
    return {}


def _moment(seconds: Any) -> str | None:
    with suppress(TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
    return None


def _related(data: Any, name: str) -> Any:
    return dig(data, "data", "relationships", name, "data", "id")


def _count(text: str | None) -> int | None:
    # int() refuses a number of thousands of digits.
    return int(text) if text and text.isdecimal() and len(text) < 10 else None

"""Say what became of a message whose flow has failed, and what to do, in two sentences."""

import math
import re
from typing import Any

# The steps before the one that sends the message.
BEFORE = ("check", "customer", "conversation", "upload")
# What to do first, by the name of the step's error; any other error speaks for itself.
TO_DO = {
    "InvalidInput": "Correct what cause names",
    "FileNotRead": "Check that the file is in Windmill's object storage, and that whoever runs the flow may read it",
    "FileNotWritten": "Check that the workspace has object storage, and that whoever runs the flow may use it",
    "CannotConnect": "Check orgName and baseUrl, and that the worker may connect to where cause says",
    "NotTrusted": "Check baseUrl, and which certificates the worker trusts",
    "BadProxy": "Correct the proxy that the worker is set to use, which cause names",
    "AccessDenied": "Run f/kustomer/check_connection to see what the key lacks, give the flow a key that has it",
    "RateLimited": "Wait a minute",
    "Rejected": "Correct what cause names",
    "Conflict": "Read in cause what has the same id, and give the message a messageId of its own if it is another one",
    "ServerFailed": "Wait until Kustomer works again",
    "NoAnswer": "Wait until Kustomer works again",
    "OddAnswer": "Check orgName, baseUrl and any proxy in between",
}


class RecordingFailed(Exception):
    """What Windmill shows as the flow's error; the attributes are its ``error.extra``."""


def main(failed: Any) -> None:
    """Raises RecordingFailed.

    ``failed`` is the result of the step that failed, ``{"error": {"name", "message", "step_id", "extra"}}``, or the
    list of a loop's results. The attributes are ``step``, ``kind`` and ``cause`` (name and text of the step's own
    error), ``outcome`` (of the message), ``retryable``, ``retry_after``, ``status`` and ``errors``.
    """
    results = failed if isinstance(failed, list) else [failed]
    errors = [each["error"] for each in results if isinstance(each, dict) and isinstance(each.get("error"), dict)]
    # Of several, one that a second run doesn't cure, else the one to wait for the longest.
    told = min(map(_told, errors or [{}]), key=lambda each: (each["retryable"], -(each["retry_after"] or 0)))
    raised = RecordingFailed(f"{_happened(told)} {_to_do(told)}")
    vars(raised).update(told)
    raise raised


def _told(error: dict[str, Any]) -> dict[str, Any]:
    """Reads a step's error, or one that was raised here before, for the part of the flow that uploads a file."""
    extra = error["extra"] if isinstance(error.get("extra"), dict) else {}
    step = _word(extra.get("step") if "kind" in extra else error.get("step_id"))
    # A step that says nothing, as its worker was killed, may have sent the message.
    outcome = extra["outcome"] if extra.get("outcome") in ("not_sent", "rejected") else "unknown"
    wait, status = extra.get("retry_after"), extra.get("status")
    return {
        "step": step,
        "kind": _word(extra.get("kind") or error.get("name")),
        "cause": extra.get("cause") or error.get("message"),
        "outcome": "not_sent" if step in BEFORE else outcome,
        "retryable": extra.get("retryable") is True,
        "retry_after": wait if isinstance(wait, int | float) and wait > 0 else None,
        "status": status if isinstance(status, int) else None,
        "errors": extra["errors"] if isinstance(extra.get("errors"), list) else [],
    }


def _word(text: Any) -> str | None:
    return text if isinstance(text, str) and re.fullmatch(r"[\w-]{1,60}", text) else None


def _happened(told: dict[str, Any]) -> str:
    """Speaks of this run only: an earlier one may have recorded the message."""
    what = "It is unknown whether this run has" if told["outcome"] == "unknown" else "This run has not"
    where = f"step {told['step']}" if told["step"] else "flow"
    return f"{what} recorded the message, as the {where} failed with {told['kind'] or 'an error'}."


def _to_do(told: dict[str, Any]) -> str:
    first = TO_DO.get(told["kind"], "Read cause")
    if told["retryable"]:
        wait = told["retry_after"]
        return f"{f'Wait {math.ceil(wait)} s' if wait else first}, then run the flow again with the same messageId."
    if told["outcome"] == "unknown":
        return (
            f"{first}, and look for the message on the timeline before you run the flow again, unless the key has the "
            "role org.permission.message.read, with which the flow looks by itself."
        )
    return f"{first}, then run the flow again."

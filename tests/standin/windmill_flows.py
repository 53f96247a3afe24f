"""What becomes of a flow that is deployed: https://www.windmill.dev/docs/openflow.

A job that follows every deployment reads the flow and writes it anew: defaults are filled in, missing locks are
resolved, and what it doesn't know is gone. Where the files say anything else than that, they differ from what the
workspace exports ever after, and each push deploys the flow again. None of it is documented: this follows the
sources that Windmill publishes.
"""

from typing import Any

Item = dict[str, Any]

# What the server resolves for an inline script without a lock; here for one that imports nothing.
RESOLVED_LOCK = "# py: 3.12\n"

_STEP_KEYS = {
    *("id", "value", "summary", "retry", "timeout", "sleep", "suspend", "mock", "priority", "debouncing"),
    *("skip_if", "stop_after_if", "stop_after_all_iters_if", "continue_on_error", "delete_after_secs"),
    *("cache_ttl", "cache_ignore_s3_path", "apply_preprocessor", "pass_flow_input_directly"),
}
_TRANSIENT = ("deployment_message", "skip_draft_deletion")
_UNSET: Item = {"description": "", "schema": None, "extra_perms": {}}
_RETRY: dict[str, Item] = {
    "constant": {"attempts": 0, "seconds": 0},
    "exponential": {"attempts": 0, "multiplier": 1, "seconds": 0, "random_factor": None},
}
_LOOP: Item = {"skip_failures": True, "parallel": False}


def deployed(flow: Item) -> Item:
    """The flow as the workspace holds it once it is deployed."""
    told = {key: value for key, value in flow.items() if key not in _TRANSIENT}
    return _UNSET | told | {"value": _completed_value(flow["value"])}


def _completed_value(value: Item) -> Item:
    handlers = {key: _completed(value[key]) for key in ("failure_module", "preprocessor_module") if key in value}
    return value | {"modules": [_completed(module) for module in value["modules"]]} | handlers


def _completed(module: Item) -> Item:
    known = {key: value for key, value in module.items() if key in _STEP_KEYS}
    known["value"] = _completed_step(module["value"])
    if "retry" in known:
        known["retry"] = _completed_retry(known["retry"])
    if "stop_after_if" in known:
        known["stop_after_if"] = {"error_message": None} | known["stop_after_if"]
    return _with_transform(known, "timeout")


def _completed_step(step: Item) -> Item:
    if step["type"] in ("forloopflow", "whileloopflow"):
        step = step | {"modules": [_completed(module) for module in step["modules"]]}
    if step["type"] == "forloopflow":
        return _with_transform(_LOOP | step, "parallelism")
    if step["type"] == "rawscript":
        return step | {"lock": step.get("lock") or RESOLVED_LOCK}
    return step


def _completed_retry(retry: Item) -> Item:
    delays = {kind: unset | retry.get(kind, {}) for kind, unset in _RETRY.items()}
    return delays | {key: value for key, value in retry.items() if key == "retry_if"}


def _with_transform(item: Item, key: str) -> Item:
    """A plain number where an expression is allowed too becomes a static transform."""
    if isinstance(item.get(key), int):
        return item | {key: {"type": "static", "value": item[key]}}
    return item

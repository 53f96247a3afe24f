"""Tell whether another round would record more of the history."""

from typing import Any


def main(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Return ``{"finished", "parts"}``: what the ``parts`` have returned, and whether none of them can go on."""
    return {"finished": not any(part.get("again") for part in parts), "parts": parts}

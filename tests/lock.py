"""Writes each ``.script.lock`` (`make lock`) as a Windmill server would: from the pins at the top of the scripts."""

import pathlib
import sys

from tests.standin import windmill_locks

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "f").rglob("*.py"))
# What people run; what lies below it is for these.
STEPS = [script for script in SCRIPTS if script.parent == ROOT / "f" / "kustomer"]


def path_of(script: pathlib.Path) -> str:
    """Return a script's path in Windmill."""
    return script.relative_to(ROOT).with_suffix("").as_posix()


# Path -> text of every script.
SOURCES = {path_of(script): script.read_text(encoding="utf-8") for script in SCRIPTS}


def write() -> None:
    """Write every lock; nothing is looked up."""
    for script in SCRIPTS:
        text = windmill_locks.lock(path_of(script), SOURCES)
        if windmill_locks.NEWEST in text:
            sys.exit(f"{script}: not all that it imports is pinned\n{text}")
        script.with_suffix(".script.lock").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()

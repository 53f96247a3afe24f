"""Pins what each script imports in its ``.script.lock`` (`make lock`), as a Windmill worker would when it deploys.

https://www.windmill.dev/docs/advanced/dependencies_in_python
"""

import ast
import functools
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
SCRIPTS = sorted((ROOT / "f").rglob("*.py"))
# What people run; what lies below it is for these.
STEPS = [script for script in SCRIPTS if script.parent == ROOT / "f" / "kustomer"]
# The packages that have another name than what is imported from them.
PACKAGES = {"phonenumbers": "phonenumberslite"}
# The version that the tests run on; the worker takes it from the lock's first line.
PYTHON = "3.11"


@functools.cache
def requirements(script: pathlib.Path) -> frozenset[str]:
    """Returns the packages that a script imports, itself or through other scripts of the workspace."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        modules = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
        for module in modules:
            top = module.partition(".")[0]
            if top in ("f", "u"):
                found |= requirements(ROOT.joinpath(*module.split(".")).with_suffix(".py"))
            elif top not in sys.stdlib_module_names:
                found.add(PACKAGES.get(top, top))
    return frozenset(found)


def lock(script: pathlib.Path) -> str:
    """Returns the text of a script's lock: the Python version, then every package it needs with its version."""
    pinned = ""
    if wanted := requirements(script):
        command = ["uv", "pip", "compile", "-q", "--no-header", "--no-annotate", "--strip-extras", "-p", PYTHON, "-"]
        compiled = subprocess.run(command, input="\n".join(wanted), capture_output=True, text=True, check=True)
        pinned = compiled.stdout
    return f"# py: {PYTHON}\n{pinned}"


if __name__ == "__main__":
    for each in SCRIPTS:
        each.with_suffix(".script.lock").write_text(lock(each), encoding="utf-8")

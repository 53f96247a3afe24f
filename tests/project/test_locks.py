"""What is pinned is what runs: each lock holds all that its script needs, and a job has nothing else."""

import ast
import functools
import json
import pathlib
import re
import subprocess
import sys

import pytest

from tests import lock
from tests.standin.worker import JOB_PYTHON

# Prints every installed package with its version and what it needs without extras, as this machine reads the markers.
INSTALLED = """
import importlib.metadata as m, json, re, sys
def here(r):
    older = re.search(r'python_version < .(\\d+)[.](\\d+)', r)
    return 'extra ==' not in r and (not older or sys.version_info < tuple(map(int, older.groups())))
def needs(d):
    return [re.match(r'[\\w.-]+', r)[0].lower().replace('_', '-') for r in d.requires or () if here(r)]
print(json.dumps({d.name.lower().replace('_', '-'): (d.version, needs(d)) for d in m.distributions()}))
"""

each_script = pytest.mark.parametrize("script", lock.SCRIPTS, ids=lambda script: str(script.stem))


def pinned(script: pathlib.Path) -> dict[str, str]:
    """The packages of a script's lock with their versions; its form is checked on the way."""
    first, *lines = script.with_suffix(".script.lock").read_text(encoding="utf-8").splitlines()
    assert first == f"# py: {lock.PYTHON}"
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+", line)] == []
    return dict(line.split("==") for line in lines)


def installed() -> dict[str, tuple[str, list[str]]]:
    """What a job's Python has: name -> (version, names of what it needs)."""
    ran = subprocess.run([JOB_PYTHON, "-c", INSTALLED], capture_output=True, text=True, check=True)
    found: dict[str, tuple[str, list[str]]] = json.loads(ran.stdout)
    return found


@each_script
def test_lock_has_everything_that_is_imported(script: pathlib.Path) -> None:
    """The script's own imports, those of the modules it shares, and what these packages need in turn."""
    packages, present = pinned(script), installed()
    needed = lock.requirements(script)
    for name in packages:
        needed |= set(present[name][1])
    assert needed <= packages.keys()


def test_job_has_what_the_locks_pin_and_nothing_else() -> None:
    """A test that passes here can't lean on a package that a worker doesn't have."""
    wanted = {name: version for script in lock.SCRIPTS for name, version in pinned(script).items()}
    assert {name: version for name, (version, _) in installed().items()} == wanted


@each_script
def test_import_that_windmill_does_not_see_is_declared(script: pathlib.Path) -> None:
    """Who edits a step in Windmill gets the same packages: it looks for imports at the top of a script only."""
    assert lock.requirements(script) - visible(script) == declared(script)


def declared(script: pathlib.Path) -> set[str]:
    """The packages that a script names in a comment."""
    source = script.read_text(encoding="utf-8")
    return set("".join(re.findall(r"^# extra_requirements:\n((?:# [\w-]+\n)*)", source, re.M)).replace("#", "").split())


@functools.cache
def visible(script: pathlib.Path) -> frozenset[str]:
    """The packages that Windmill finds: those of imports at the top of a script, and of the scripts imported there."""
    found: set[str] = set()
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        for name in [node.module or ""] if isinstance(node, ast.ImportFrom) else names:
            if name.startswith("f."):
                imported = lock.ROOT.joinpath(*name.split(".")).with_suffix(".py")
                found |= visible(imported) | declared(imported)
            elif name.partition(".")[0] not in sys.stdlib_module_names:
                found.add(name.partition(".")[0])
    return frozenset(found)


def test_scripts_that_share_a_package_pin_the_same_version() -> None:
    """A shared module runs with the lock of the step that imports it."""
    versions: dict[str, set[str]] = {}
    for script in lock.SCRIPTS:
        for name, version in pinned(script).items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}

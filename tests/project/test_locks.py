"""What is pinned is what runs: the server writes the same locks anew, a job has nothing else, and a deploy settles."""

import ast
import collections
import functools
import itertools
import json
import subprocess

import pytest

from tests import lock
from tests.standin import windmill_locks
from tests.standin.worker import JOB_PYTHON

# A deploy of empty scripts with 110 jobs settled after 45 s on a server with two workers.
MOST_JOBS, MOST_FLOORS = 250, 8

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
# The packages that have another name than what is imported from them.
PACKAGES = {"phonenumbers": "phonenumberslite"}

each_script = pytest.mark.parametrize("path", lock.SOURCES)
each_step = pytest.mark.parametrize("path", [lock.path_of(step) for step in lock.STEPS])


def text(path: str) -> str:
    """The text of a script's lock."""
    return (lock.ROOT / f"{path}.script.lock").read_text(encoding="utf-8")


def pinned(path: str) -> dict[str, str]:
    """The packages of a script's lock with their versions."""
    return dict(line.split("==") for line in text(path).splitlines()[1:])


@functools.cache
def installed() -> dict[str, tuple[str, list[str]]]:
    """What a job's Python has: name -> (version, names of what it needs)."""
    ran = subprocess.run([JOB_PYTHON, "-c", INSTALLED], capture_output=True, text=True, check=True)
    found: dict[str, tuple[str, list[str]]] = json.loads(ran.stdout)
    return found


def imported(path: str) -> set[str]:
    """The modules that a script imports anywhere in it, and those that the scripts among them do."""
    names: set[str] = set()
    left = [path]
    while left:
        new = set(windmill_locks.imported(ast.walk(ast.parse(lock.SOURCES[left.pop()])))) - names
        names |= new
        left += windmill_locks.scripts(new)
    return names


@each_script
def test_lock_is_the_one_that_the_server_writes(path: str) -> None:
    """So the jobs that a push sets off change nothing, and the next push is empty."""
    assert text(path) == windmill_locks.lock(path, lock.SOURCES)


@each_script
def test_lock_leaves_nothing_to_be_looked_up(path: str) -> None:
    """All that the packages need in turn is pinned as well; else the server takes whatever is newest on that day."""
    present = installed()
    needed = {need for name in pinned(path) for need in present[name][1]}
    assert needed <= pinned(path).keys()


@each_step
def test_step_has_all_that_is_imported_on_the_way(path: str) -> None:
    """Also what is imported where it is needed, which the server doesn't see."""
    needed = windmill_locks.packages(imported(path))
    assert {PACKAGES.get(name, name) for name in needed} <= pinned(path).keys()


def test_package_is_pinned_in_one_place() -> None:
    """Whoever changes a version changes one line; the Python is the one of the locks in each."""
    lists = {path: windmill_locks.listed(source) for path, source in lock.SOURCES.items()}
    names = [each.partition("==")[0] for found in lists.values() for each in found]
    assert sorted(names) == sorted(set(names))
    for path in filter(lists.get, lists):
        assert lock.SOURCES[path].startswith(f"# py: =={windmill_locks.PYTHON}.*\n")


def test_job_has_what_the_locks_pin_and_nothing_else() -> None:
    """A test that passes here can't lean on a package that a worker doesn't have."""
    wanted = {name: version for path in lock.SOURCES for name, version in pinned(path).items()}
    assert {name: version for name, (version, _) in installed().items()} == wanted


def test_deploy_settles_soon() -> None:
    """Each way up through the imports is a job; what reaches past its neighbour adds the ways through both."""
    jobs = windmill_locks.jobs(lock.SOURCES, lock.SOURCES)
    floors = max(map(len, jobs))
    further = {(job[0], job[-1]) for job in jobs if len(job) > 2}
    costs = collections.Counter(arrow for job in jobs for arrow in itertools.pairwise(job) if arrow in further)
    lines = [f"{count} jobs because {importer} imports {script}" for (script, importer), count in costs.most_common()]
    said = "\n".join([f"{len(jobs)} jobs, {floors} floors; imports that reach past a neighbour:", *lines])
    assert len(jobs) <= MOST_JOBS, said
    assert floors <= MOST_FLOORS, said

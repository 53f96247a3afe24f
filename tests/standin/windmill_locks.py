"""What a push of scripts sets off: whatever imports one of them is locked anew, and then whatever imports that.

A job that locks a script knows which scripts its own chain has come through, and nothing of other chains: a script is
locked once for each way that leads up to it. What the server takes for an import stands at the top of a script, above
its main function. Little of it is documented (https://www.windmill.dev/docs/advanced/dependencies_in_python): this
follows the sources that Windmill publishes, and what a server of June 2026 did.
"""

import ast
import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping

# The server's own choice, and what the scripts ask for.
PYTHON = "3.12"
# What the server looks up where a script leaves the version open: one that no package has, so that it is seen.
NEWEST = "9999"

# A chain of scripts, each imported by the next; the last one is locked.
Job = tuple[str, ...]


def imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Give the dotted name of each module that one of these nodes imports."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def packages(names: Iterable[str]) -> set[str]:
    """Return the packages among the names of modules, as the server guesses them: neither scripts nor Python's own."""
    roots = {name.partition(".")[0] for name in names}
    return {root.replace("_", "-") for root in roots - {"f", "u"} - sys.stdlib_module_names}


def scripts(names: Iterable[str]) -> list[str]:
    """Return the paths of the scripts among the names of modules."""
    return [name.replace(".", "/") for name in names if name.startswith(("f.", "u."))]


def listed(source: str, head: str = "(?:extra_)?requirements") -> set[str]:
    """Return the requirements that a script lists in a comment below this head."""
    blocks = re.findall(rf"^# {head}:\n((?:# \S+\n)*)", source, re.MULTILINE)
    return set("".join(blocks).replace("#", "").split())


def requirements(path: str, sources: Mapping[str, str]) -> set[str]:
    """Return what the server resolves for a script: packages, with a version where the scripts give one.

    A list takes the place of all that would be found in the script and below it; one of extra requirements adds to it.
    """
    found: set[str] = set()
    known, left = {path}, [path]
    while left:
        source = sources.get(left.pop(), "")
        if whole := listed(source, "requirements"):
            found |= whole
            continue
        names = _seen(source)
        found |= packages(names) | listed(source, "extra_requirements")
        below = set(scripts(names)) - known
        known |= below
        left += below
    return found


def lock(path: str, sources: Mapping[str, str]) -> str:
    """Return the lock that the server writes for a script: sources are path -> text."""
    wanted = requirements(path, sources)
    pins = {each for each in wanted if "==" in each}
    open_ones = wanted - pins - {pin.partition("==")[0] for pin in pins}
    return f"# py: {PYTHON}\n" + "\n".join(sorted(pins | {f"{each}=={NEWEST}" for each in open_ones}))


def jobs(pushed: Iterable[str], sources: Mapping[str, str]) -> list[Job]:
    """Return the jobs that a push of these scripts sets off in a workspace: sources are path -> text."""
    importers: dict[str, list[str]] = {path: [] for path in sources}
    for path, source in sources.items():
        for script in set(scripts(_seen(source))) & sources.keys():
            importers[script].append(path)
    return [job for path in pushed for job in _above((path,), importers)]


@functools.cache
def _seen(source: str) -> tuple[str, ...]:
    return tuple(imported(ast.parse(source.partition("def main(")[0]).body))


def _above(chain: Job, importers: Mapping[str, list[str]]) -> Iterator[Job]:
    for importer in importers[chain[-1]]:
        if importer not in chain:
            job = (*chain, importer)
            yield job
            yield from _above(job, importers)

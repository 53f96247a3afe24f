"""Print a step as one script that needs no repository: `make single STEP=create_message`; with SCHEMA=1, its form.

For those who paste a script into Windmill's editor. The script is what the step imports of ours, and then the step: the
text of each module as it stands there, but for the imports, which come first in one block, and main, which is the last.
"""

import ast
import json
import os
import pathlib
import re
import subprocess
import symtable
import sys
import textwrap
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from typing import TypeGuard

from tests.lock import ROOT, STEPS


class NotJoined(Exception):
    """Modules that can't be one file as they are; the text says which, and why."""


class Module:
    """One of our modules, by its name such as ``f.kustomer.shared.client``.

    ``needs`` are its imports of other modules of ours, those within functions too; ``libraries`` are the other imports
    at its top. ``lines`` are what is left of its text below the docstring without these, and without ``__all__``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.file = ROOT.joinpath(*name.split(".")).with_suffix(".py")
        if not self.file.is_file():
            raise NotJoined(f"{name} is no module: import what is needed from the modules in it")
        self.text = self.file.read_text(encoding="utf-8")
        self.tree = ast.parse(self.text)
        self.docstring, *rest = self.tree.body
        self.needs = [node for node in ast.walk(self.tree) if _is_ours(node)]
        imports = [node for node in rest if isinstance(node, ast.Import | ast.ImportFrom)]
        self.libraries = [node for node in imports if not _is_ours(node)]
        self.mains = [node for node in rest if isinstance(node, ast.FunctionDef) and node.name == "main"]
        exports = [node for node in rest if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"]
        head = self.docstring.end_lineno or 0
        self.lines = [""] * head + self.text.splitlines(keepends=True)[head:]
        self.take([*self.needs, *self.libraries, *exports])

    def take(self, nodes: Sequence[ast.stmt]) -> str:
        """Take statements out of the lines, with what is said of them above, and return their text."""
        taken = []
        for node in nodes:
            first, end = node.lineno - 1, node.end_lineno or 0
            while first and self.lines[first - 1].lstrip().startswith("#"):
                first -= 1
            taken += self.lines[first:end]
            self.lines[first:end] = [""] * (end - first)
        return "".join(taken)


def _is_ours(node: ast.AST) -> TypeGuard[ast.ImportFrom]:
    return isinstance(node, ast.ImportFrom) and str(node.module).startswith("f.")


def single(step: str) -> str:
    """Return a step, such as ``create_message``, as one script. Raise NotJoined."""
    *below, own = modules = _modules_of(f"f.kustomer.{step}")
    aliases = _aliases_of_mains(modules)
    if clashes := list(_clashes(modules, aliases)):
        raise NotJoined("\n".join(clashes))
    imports = {ast.unparse(node) for module in modules for node in module.libraries}
    parts = [_head(own), str(ast.get_source_segment(own.text, own.docstring)), *sorted(imports)]
    for module in below:
        main = module.take(module.mains)
        parts += [_comment(f"{module.name}\n\n{ast.get_docstring(module.tree)}"), "".join(module.lines)]
        if module.name in aliases:
            parts.append(main.replace("def main(", f"def {aliases[module.name]}(", 1))
    main = own.take(own.mains)
    parts += [_comment(own.name), "".join(own.lines), main]
    return _ruff("format", _ruff("check --fix --select=I", "\n\n".join(parts)))


def form(step: str) -> str:
    """Return a step's form as JSON, as Windmill's editor takes it."""
    from tests.windmill_cli import read_yaml  # with a server and its libraries, for which no script has to wait

    schema = read_yaml(ROOT / f"f/kustomer/{step}.script.yaml")["schema"]
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _modules_of(step: str) -> list[Module]:
    """Read a step and all that it needs: each comes after those that are imported at its top, the step last."""
    found: dict[str, Module] = {}
    tops: dict[str, list[str]] = {}
    rest = [step]
    while rest:
        name = rest.pop(0)
        if name not in found:
            module = found[name] = Module(name)
            tops[name] = [str(node.module) for node in module.tree.body if _is_ours(node)]
            rest += [str(node.module) for node in module.needs]
    below = [name for name in TopologicalSorter(tops).static_order() if name != step]
    return [found[name] for name in [*below, step]]


def _aliases_of_mains(modules: list[Module]) -> dict[str, str]:
    """Return by the name of each step whose ``main`` another one imports what that is called there.

    Raise NotJoined for anything else that is imported under another name.
    """
    found = {}
    for module in modules:
        for node in module.needs:
            for each in node.names:
                is_renamed = each.asname not in (None, each.name)
                if is_renamed != (each.name == "main"):
                    raise NotJoined(f"{module.name}: {ast.unparse(node)}: a main needs another name, all else its own")
                if is_renamed:
                    found[str(node.module)] = str(each.asname)
    return found


def _clashes(modules: list[Module], aliases: dict[str, str]) -> Iterator[str]:
    """Say of each name that means two things where it means which."""
    seen: dict[str, tuple[str, str]] = {}
    for module in modules:
        for name, meaning in _meanings(module):
            name = aliases.get(module.name, "") if name == "main" else name
            where, other = seen.setdefault(name, (module.name, meaning))
            if name and meaning != other:
                yield f"{name} is one thing in {where} and another in {module.name}: rename one of them"


def _meanings(module: Module) -> Iterator[tuple[str, str]]:
    """Give each name at the top of a module, with what tells it from another module's."""
    for node in module.libraries:
        for each in node.names:
            if isinstance(node, ast.Import) and not each.asname:
                package = each.name.partition(".")[0]
                yield package, package
            else:
                yield each.asname or each.name, f"{getattr(node, 'module', '')} {each.name}"
    for symbol in symtable.symtable(module.text, module.name, "exec").get_symbols():
        if symbol.is_assigned() and symbol.get_name() != "__all__":
            yield symbol.get_name(), module.name


def _comment(text: str) -> str:
    return textwrap.indent(text, "# ", lambda _: True)


def _head(own: Module) -> str:
    """Return where the script comes from, and the pins of the step's lock where Windmill reads them."""
    python, *pins = own.file.with_suffix(".script.lock").read_text(encoding="utf-8").splitlines()
    made = f"{own.file.stem} of {_origin()}, made by make single STEP={own.file.stem} and not edited by hand."
    listed = ["requirements:", *pins] if pins else []
    return _comment("\n".join([made, python.replace("# py: ", "py: ==") + ".*", *listed]))


def _origin() -> str:
    """Return the repository and its version."""
    title, *_ = (ROOT / "README.md").read_text(encoding="utf-8").removeprefix("# ").splitlines()
    address = without_login(_git("remote get-url origin"))
    return f"{address or title} at {_git('describe --tags --always --dirty') or 'an unknown version'}"


def without_login(address: str) -> str:
    """Return a repository's address without the name and the password that it may have in it."""
    return re.sub("//[^/]*@", "//", address)


def _git(command: str) -> str:
    return subprocess.run(["git", *command.split()], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _ruff(command: str, script: str) -> str:
    """Return what ruff makes of a script."""
    whole = ["ruff", *command.split(), "--quiet", "--stdin-filename=f/kustomer/single.py", "-"]
    return subprocess.run(whole, cwd=ROOT, input=script, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Print what the environment's STEP and SCHEMA ask for."""
    step = pathlib.PurePath(os.environ.get("STEP", "")).stem
    steps = [script.stem for script in STEPS]
    if step not in steps:
        sys.exit(f"make single STEP=... takes one of {', '.join(steps)}")
    try:
        text = form(step) if os.environ.get("SCHEMA") else single(step)
    except NotJoined as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(text.encode())


if __name__ == "__main__":
    main()

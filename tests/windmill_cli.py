"""Windmill's own CLI and Python parser, run on a copy of this repository.

Both are npm packages pinned in tests/package.json: https://www.windmill.dev/docs/advanced/cli
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from tests.standin.windmill import Workspace

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMMANDS = ROOT / "tests" / "node_modules" / ".bin"
NODE_NEEDED = "Node.js (npm) is needed here, for Windmill's own CLI: install it, then run make again"

# Infers the forms of scripts, and notes what all files hold, so that a push takes none for stale.
INFER = "wmill generate-metadata --schema-only --yes"
REHASH = "wmill generate-metadata rehash"

# Reads {name: source} from standard input and writes {name: what the parser says of it}.
PARSE = """
import { readFileSync } from 'node:fs';
import parser, { parse_python } from 'windmill-parser-wasm-py';
const wasm = 'node_modules/windmill-parser-wasm-py/windmill_parser_wasm_bg.wasm';
await parser({ module_or_path: readFileSync(wasm) });
const sources = Object.entries(JSON.parse(readFileSync(0, 'utf8')));
console.log(JSON.stringify(Object.fromEntries(sources.map(([k, v]) => [k, JSON.parse(parse_python(v))]))));
"""


class CoreLoader(yaml.SafeLoader):
    """YAML 1.2 as the CLI reads it: `yes` and `2026-01-31` are strings."""


CoreLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
CoreLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def need_node() -> None:
    """Skip the calling test where Node.js or the packages are missing, saying what to do; on CI, fail."""
    if shutil.which("node") and (COMMANDS / "wmill").exists():
        return
    if os.environ.get("CI"):
        pytest.fail(NODE_NEEDED)
    pytest.skip(NODE_NEEDED)


def read_yaml(file: pathlib.Path) -> Any:
    """What a YAML file says, read as the CLI reads it."""
    return yaml.load(file.read_text(encoding="utf-8"), CoreLoader)  # noqa: S506 - derives from SafeLoader


def copy_repository(target: pathlib.Path) -> pathlib.Path:
    """Copy the repository as somebody has it who checked it out, and return the copy."""
    return shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "node_modules", "__pycache__"))


def make_stale(repository: pathlib.Path) -> None:
    """Let the CLI take every script's metadata for out of date, so that it writes all of it anew."""
    (repository / "wmill-lock.yaml").write_text("version: v2\nlocks: {}\n", encoding="utf-8")


def run(
    command: str, repository: pathlib.Path, home: pathlib.Path, *, fails: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a shell command line that may call `wmill`, in a copy of the repository and with `home` as home.

    The CLI keeps its profiles under `home`, so nothing of the machine's own configuration is used. A command
    that fails raises AssertionError with all it printed; with `fails`, one that succeeds does.
    """
    path = f"{COMMANDS}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": path, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "NO_COLOR": "1"}
    result = subprocess.run(  # noqa: S602 - the tests' own command lines, with || in them
        command,
        shell=True,
        cwd=repository,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if (result.returncode != 0) != fails:
        raise AssertionError(f"{command}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
    return result


def log_in(workspace: Workspace, repository: pathlib.Path, home: pathlib.Path) -> None:
    """Make the workspace the CLI's default: https://www.windmill.dev/docs/advanced/cli/workspace-management."""
    command = f"wmill workspace add {workspace.id} {workspace.id} {workspace.url} --token {workspace.token}"
    run(command, repository, home)


def at(workspace: Workspace) -> str:
    """The options that address a workspace in one command, without a profile."""
    return f"--base-url {workspace.url} --workspace {workspace.id} --token {workspace.token}"


def parse(sources: dict[str, str]) -> dict[str, Any]:
    """What Windmill's parser makes of each source: name -> {args: [{name, typ, has_default, ...}], ...}."""
    result = subprocess.run(
        [shutil.which("node") or "node", "--input-type=module", "--eval", PARSE],
        cwd=ROOT / "tests",
        input=json.dumps(sources),
        capture_output=True,
        text=True,
        check=True,
    )
    parsed: dict[str, Any] = json.loads(result.stdout)
    return parsed


def evaluate(expression: str, **names: object) -> Any:
    """What a flow's JavaScript expression gives, with these names in scope; None where that is undefined."""
    need_node()
    script = (
        "const { expression, names } = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "const value = new Function(...Object.keys(names), `return (${expression})`)(...Object.values(names));"
        "console.log(JSON.stringify(value ?? null));"
    )
    given = json.dumps({"expression": expression, "names": names})
    command = [shutil.which("node") or "node", "--eval", script]
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=True)
    return json.loads(result.stdout)

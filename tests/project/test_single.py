"""A step as one file stands alone, and is what the step is. That it keeps create_message's contract is tried there."""

import ast
import functools
import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

from tests import lock, single, windmill_cli
from tests.conftest import Body
from tests.project.test_try import make
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

STEPS = [script.stem for script in lock.STEPS]
each_step = pytest.mark.parametrize("step", STEPS)

file_of = functools.cache(single.single)


@each_step
def test_nothing_of_ours_is_imported_and_all_else_is_pinned(step: str) -> None:
    """Windmill installs what the comments at the top list, and fetches no other script."""
    found = [node for node in ast.walk(ast.parse(file_of(step))) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {str(node.module) for node in found if isinstance(node, ast.ImportFrom)}
    names |= {each.name for node in found if isinstance(node, ast.Import) for each in node.names}
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    owners = importlib.metadata.packages_distributions()
    listed = set(re.findall(r"^# ([\w-]+)==", file_of(step), re.M))
    assert [name for name in packages if not listed & set(owners.get(name, []))] == []


@each_step
def test_pins_are_those_of_the_step(step: str) -> None:
    """What runs from one file is what was tested."""
    _, python, *rest = file_of(step).partition('\n"""')[0].splitlines()
    wanted = (lock.ROOT / f"f/kustomer/{step}.script.lock").read_text(encoding="utf-8").splitlines()
    assert [re.sub("==|[.][*]", "", python), *(each for each in rest if "==" in each)] == [
        wanted[0],
        *(f"# {pin}" for pin in wanted[1:]),
    ]


@each_step
def test_linter_finds_nothing(step: str) -> None:
    """Whoever keeps it in a repository of their own has a file like any other; a name that is missing would show."""
    command = ["ruff", "check", "--ignore=E501", f"--stdin-filename=f/kustomer/{step}.py", "-"]
    result = subprocess.run(command, cwd=lock.ROOT, input=file_of(step), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def test_parser_reads_the_step_s_signature() -> None:
    """Windmill infers of the one file what it infers of the step: the key is a resource, the body's form is ours."""
    windmill_cli.need_node()
    steps = ["create_message", "record_message"]
    ours = {step: (lock.ROOT / f"f/kustomer/{step}.py").read_text(encoding="utf-8") for step in steps}
    assert windmill_cli.parse({step: file_of(step) for step in steps}) == windmill_cli.parse(ours)


def test_form_stays_as_it_is_pasted(tmp_path: pathlib.Path) -> None:
    """Windmill's inference keeps every field of it."""
    windmill_cli.need_node()
    step = tmp_path / "f" / "kustomer" / "create_message"
    step.parent.mkdir(parents=True)
    (tmp_path / "wmill.yaml").write_bytes((lock.ROOT / "wmill.yaml").read_bytes())
    step.with_suffix(".py").write_text(file_of("create_message"), encoding="utf-8")
    step.with_suffix(".script.lock").write_text("# py: 3.12", encoding="utf-8")
    form = json.loads(single.form("create_message"))
    step.with_suffix(".script.yaml").write_text(json.dumps({"summary": "", "schema": form}), encoding="utf-8")
    windmill_cli.make_stale(tmp_path)
    with Workspace() as workspace:
        windmill_cli.run(f"{windmill_cli.INFER} {windmill_cli.at(workspace)}", tmp_path, tmp_path)
    assert windmill_cli.read_yaml(step.with_suffix(".script.yaml"))["schema"] == form


def test_message_is_short_enough_to_paste() -> None:
    """An editor in a browser takes 100 kB."""
    assert len(file_of("create_message").encode()) < 100_000


def job(step: str, windmill: Workspace, folder: pathlib.Path, args: Body, **env: str) -> worker.Job:
    """Run a step as one file, which asks the Windmill server for nothing."""
    file = folder / f"{step}.py"
    file.write_text(file_of(step), encoding="utf-8")
    before = len(windmill.requests)
    done = worker.run(file, args, workspace=windmill, env=env)
    assert windmill.requests[before:] == []
    return done


def test_create_message_runs_as_one_file(
    kustomer: Kustomer, windmill: Workspace, auth: Body, message: Body, tmp_path: pathlib.Path
) -> None:
    """With the pinned packages and nothing else."""
    done = job("create_message", windmill, tmp_path, {"auth": auth, "body": message})
    assert done.ok, done.error
    assert [each["id"] for each in kustomer.messages] == [done.result["data"]["id"]]


def test_record_message_runs_as_one_file(
    kustomer: Kustomer, windmill: Workspace, auth: Body, tmp_path: pathlib.Path
) -> None:
    """With all the steps that it is made of: customer, conversation, file and message."""
    file = {"name": "lamp.txt", "content": "TGFtcA=="}
    event = {"channel": "chat", "messageId": "1", "email": "ada@example.com", "text": "Hello", "files": [file]}
    done = job("record_message", windmill, tmp_path, {"auth": auth, "body": event})
    assert done.ok, done.error
    assert [each["id"] for each in kustomer.messages] == [done.result["message"]["id"]]
    assert [each["name"] for each in done.result["attachments"]] == ["lamp.txt"]


def test_error_is_the_step_s(
    kustomer: Kustomer, windmill: Workspace, auth: Body, message: Body, tmp_path: pathlib.Path
) -> None:
    """A flow that reads error.name and error.extra takes the one file as it takes the step."""
    args = {"auth": auth, "body": message}
    told = []
    for run in (worker.run, lambda _, args, **__: job("create_message", windmill, tmp_path, args)):
        kustomer.fault(Fault.answer(429, headers={"Retry-After": "600", "x-request-id": "7"}))
        error: Any = run("f/kustomer/create_message", args, workspace=windmill).error
        told.append({name: error[name] for name in ("name", "message", "extra")})
    assert told[0] == told[1]
    assert told[0]["name"] == "RateLimited"


def test_hub_s_resource_is_taken(windmill: Workspace, message: Body, tmp_path: pathlib.Path) -> None:
    """It has a key only, with which the step is on its way to Kustomer's own host, by a proxy that is none."""
    args = {"auth": {"apiKey": "a-key-of-the-hub"}, "body": message}
    done = job("create_message", windmill, tmp_path, args, HTTPS_PROXY="ftp://proxy.acme.example")
    assert done.error
    assert done.error["name"] == "BadProxy"


def test_commands_of_the_readme_print_the_script_and_the_form_and_nothing_else() -> None:
    """What is piped to the clipboard is what is pasted."""
    readme = (lock.ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^make (single .*) [|] pbcopy$", readme, re.M)
    script, form = (make(*command.split()) for command in commands)
    assert (script.returncode, script.stdout) == (0, file_of("create_message"))
    schema = windmill_cli.read_yaml(lock.ROOT / "f/kustomer/create_message.script.yaml")["schema"]
    assert (form.returncode, json.loads(form.stdout)) == (0, schema)


@pytest.mark.parametrize("words", [[], ["STEP=create"], ["STEP=errors"]])
def test_unknown_step_gets_the_list(words: list[str]) -> None:
    """What there is can be typed."""
    result = make("single", *words)
    assert (result.returncode, result.stdout) == (2, "")
    assert ", ".join(STEPS) in result.stderr


def test_first_line_says_where_it_comes_from() -> None:
    """Whoever finds it later knows the version, and where to change something."""
    version = subprocess.run(["git", "describe", "--tags", "--always", "--dirty"], capture_output=True, text=True)
    first, _, _ = file_of("record_message").partition("\n")
    assert f" at {version.stdout.strip()}, made by make single STEP=record_message and not edited by hand" in first


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://ada:pass@word@git.acme.example/steps.git", "https://git.acme.example/steps.git"),
        ("https://token@git.acme.example/steps", "https://git.acme.example/steps"),
        ("https://git.acme.example/a@b", "https://git.acme.example/a@b"),
        ("git@git.acme.example:steps.git", "git@git.acme.example:steps.git"),
        ("", ""),
    ],
)
def test_no_password_of_the_repository_is_told(address: str, shown: str) -> None:
    """A token often stands in a clone's address."""
    assert single.without_login(address) == shown


@pytest.fixture
def house(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A repository of its own, with a step ``f/kustomer/top.py`` that has yet to be written."""
    (tmp_path / "f" / "kustomer" / "shared").mkdir(parents=True)
    (tmp_path / "README.md").write_text("# Small steps\n\nText.\n", encoding="utf-8")
    (tmp_path / "f/kustomer/top.script.lock").write_text("# py: 3.12", encoding="utf-8")
    monkeypatch.setattr(single, "ROOT", tmp_path)
    return tmp_path / "f" / "kustomer"


def write(house: pathlib.Path, **modules: str) -> None:
    """Write modules, with pins of their own: ``top`` is the step, ``step`` another one, the rest are shared."""
    for name, text in modules.items():
        folder = house if name in ("top", "step") else house / "shared"
        head = f'# py: ==3.12.*\n# requirements:\n# {name}==1\n\n"""{name.title()}."""\n\n'
        (folder / f"{name}.py").write_text(head + text, encoding="utf-8")


SHARED = "from f.kustomer.shared"


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        (
            {"top": f"{SHARED}.low import a\n\nb = a", "low": "a = b = 1"},
            "b is one thing in f.kustomer.shared.low and another in f.kustomer.top",
        ),
        (
            {"top": f"{SHARED}.low import a\n\ndef b(): ...", "low": "a = 1\nclass b: ..."},
            "b is one thing in f.kustomer.shared.low and another in f.kustomer.top",
        ),
        (
            {"top": f"import json\n\n{SHARED}.low import a", "low": "a = json = 1"},
            "json is one thing in f.kustomer.shared.low and another in f.kustomer.top",
        ),
        (
            {"top": f"from os import path\n\n{SHARED}.low import a", "low": "from sys import path\na = path"},
            "path is one thing in f.kustomer.shared.low and another in f.kustomer.top",
        ),
        (
            {"top": f"def main():\n    {SHARED}.low import a\n\nb = 1", "low": "a = b = 1"},
            "b is one thing in f.kustomer.shared.low and another in f.kustomer.top",
        ),
        (
            {"top": f"{SHARED}.low import a as b", "low": "a = 1"},
            "f.kustomer.top: from f.kustomer.shared.low import a as b:",
        ),
        (
            {"top": "from f.kustomer.step import main\n", "step": "def main(): ..."},
            "f.kustomer.top: from f.kustomer.step import main:",
        ),
        ({"top": f"{SHARED} import low", "low": ""}, "f.kustomer.shared is no module"),
    ],
    ids=["value", "definition", "library", "two libraries", "within a function", "renamed", "main", "a module whole"],
)
def test_what_can_not_be_joined_is_named(house: pathlib.Path, modules: dict[str, str], said: str) -> None:
    """One name can't mean two things in one file."""
    write(house, **modules)
    with pytest.raises(single.NotJoined) as raised:
        single.single("top")
    assert said in str(raised.value)


TOP = """\
import os.path
from json import dumps

# Why this is imported.
from f.kustomer.shared.high import shout
from f.kustomer.step import main as other_main

# A number that everybody asks about.
TIMES = 2


def main(times: int = TIMES) -> str:
    \"\"\"Say it.\"\"\"
    from f.kustomer.shared.late import late  # only now

    return dumps([shout(other_main()) * times, late(), os.path.basename("a/b")])


# What main doesn't need.
REST = 1
"""
HIGH = """\
from f.kustomer.shared.low import low

__all__ = ("low", "shout")


def shout(text: str) -> str:
    return text.upper() + low()
"""
STEP = "from f.kustomer.shared.high import low\n\n\ndef main() -> str:\n    return low() + 'x'\n"
LATE = "import json\n\nfrom f.kustomer.shared.low import low\n\n\ndef late() -> str:\n    return json.dumps(low())\n"


def test_modules_are_joined_in_the_order_of_their_imports(house: pathlib.Path) -> None:
    """Docstrings and comments stay, imports come first, and main is the last."""
    write(house, top=TOP, high=HIGH, low="def low() -> str:\n    return '!'\n", late=LATE, step=STEP)
    text = single.single("top")
    names: dict[str, Any] = {}
    exec(text, names)  # noqa: S102 - our own
    assert json.loads(names["main"]()) == ["!X!!X!", '"!"', "b"]
    titles = re.findall(r"^# f\.kustomer\.(.*)$", text, re.M)
    assert titles.index("shared.low") < titles.index("shared.high") < titles.index("step") < titles.index("top")
    *_, last = ast.parse(text).body
    assert isinstance(last, ast.FunctionDef)
    assert last.name == "main"
    assert text.startswith("# top of Small steps at an unknown version, ")
    assert '\n"""Top."""\n\nimport json\nimport os.path\nfrom json import dumps\n\n# f.kustomer.' in text
    assert all(words in text for words in ("# High.", "# A number that everybody asks about.", "# What main doesn't"))
    assert not any(words in text for words in ("# Why this is imported.", "only now", "__all__", "from f.", "==1"))

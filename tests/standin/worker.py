"""A stand-in for Windmill's Python worker: the job folder, the wrapper, the loader and a real process.

It follows what https://www.windmill.dev/docs (core_concepts/jobs, core_concepts/error_handling,
core_concepts/dedicated_workers, advanced/sharing_common_logic) describes, and what a job can observe.
Left out, because no step here uses it: parameters with defaults, of types that Windmill converts or behind a `*`;
results that JSON has no form for; streams, preprocessors and `async def main`.
"""

import ast
import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import re
import shutil
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Protocol, Self, cast

ROOT = pathlib.Path(__file__).resolve().parents[2]
JOB_PYTHON = ROOT / ".venv-job" / "bin" / "python"  # holds what the deployed locks pin, and nothing else

# Only a script whose text looks like this gets a loader (docs: advanced/sharing_common_logic).
_IMPORTS_SCRIPTS = re.compile(r"(import|from)\s(((u|f)\.)|\.)")
_LOG_LINES_TOLD = 10  # how much of the log the error of a job without a result repeats

_VARIABLES = (
    *("WM_WORKSPACE", "WM_TOKEN", "WM_EMAIL", "WM_USERNAME", "WM_BASE_URL", "WM_JOB_ID", "WM_SCHEDULED_FOR"),
    *("WM_JOB_PATH", "WM_FLOW_JOB_ID", "WM_ROOT_FLOW_JOB_ID", "WM_ROOT_JOB_ID", "WM_FLOW_PATH"),
    *("WM_SCHEDULE_PATH", "WM_PERMISSIONED_AS", "WM_STATE_PATH", "WM_FLOW_STEP_ID", "WM_OBJECT_PATH"),
    *("WM_WORKER_GROUP", "WM_RUNNABLE_ID", "WM_END_USER_EMAIL", "BASE_INTERNAL_URL"),
)


class Workspace(Protocol):
    """The Windmill server as a job sees it: its address, the workspace, and a token that reads scripts."""

    @property
    def url(self) -> str: ...  # noqa: D102
    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def token(self) -> str: ...  # noqa: D102


@dataclasses.dataclass(frozen=True)
class Job:
    """What became of one job.

    `result` is the decoded result of a success. `error` is what Windmill stores under the key `error` of a
    failure: `name`, `message`, `stack`, and where there is any `extra`; or `ExecutionErr` with
    `exit_code` when the process left no result (https://www.windmill.dev/docs/core_concepts/error_handling).
    `logs` is stdout and stderr as written. `seconds` is wall time, `peak_kib` the highest resident memory (on Linux).
    """

    ok: bool
    result: Any
    error: dict[str, Any] | None
    logs: str
    seconds: float
    peak_kib: int | None = None


def run(
    script: pathlib.Path | str,
    args: Mapping[str, Any],
    *,
    workspace: Workspace | None = None,
    env: Mapping[str, str] | None = None,
    beside: Sequence[str] = (),
    timeout: float = 60,
) -> Job:
    """Run one job in a process of its own, and read what it left.

    `script` is a Windmill path of this repository (`f/kustomer/create_message`), or a file, which then runs
    as `u/test/<its name>`. Scripts it imports come from `workspace`, except those whose paths are in
    `beside`: they lie in the job folder already. `env` adds to the documented variables; nothing else of this
    process' environment is handed on. After `timeout` seconds the process is killed.
    """
    with _job_folder(script, workspace, beside, _JOB_LOOP) as (folder, path):
        (folder / "args.json").write_text(json.dumps(dict(args)), encoding="utf-8")
        log = folder.parent / "log"
        with log.open("wb") as output:
            started = time.perf_counter()
            process = subprocess.Popen(
                [JOB_PYTHON, "-u", "-m", "wrapper"],
                cwd=folder,
                env=_environment(path, folder, workspace, uuid.uuid4()) | dict(env or {}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
            with _killed_after(process, timeout):
                status = process.wait()
            seconds = time.perf_counter() - started
        logs = log.read_text(encoding="utf-8", errors="replace")
        ok, value = _outcome(folder / "result.json", status, logs)
        peak = folder / "peak_kib"
        return Job(
            ok=ok,
            result=value if ok else None,
            error=None if ok else value,
            logs=logs,
            seconds=seconds,
            peak_kib=int(peak.read_text()) if peak.exists() else None,
        )


class Dedicated:
    """A dedicated worker: one process that imports the script once and answers each line of arguments.

    `with Dedicated("f/kustomer/create_message") as worker: worker.call({"auth": ..., "body": ...})`; the
    parameters are those of `run`. Errors have no `extra`, and all jobs have the same id
    (https://www.windmill.dev/docs/core_concepts/dedicated_workers).
    """

    def __init__(
        self,
        script: pathlib.Path | str,
        *,
        workspace: Workspace | None = None,
        env: Mapping[str, str] | None = None,
        beside: Sequence[str] = (),
        timeout: float = 60,
    ) -> None:
        """Take what `run` takes; `timeout` is seconds per call. The process starts on entering."""
        self._script = script
        self._workspace = workspace
        self._env = dict(env or {})
        self._beside = beside
        self._timeout = timeout
        self._cleanup = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start the process."""
        with contextlib.ExitStack() as cleanup:
            folder, path = cleanup.enter_context(
                _job_folder(self._script, self._workspace, self._beside, _DEDICATED_LOOP)
            )
            self._process = cleanup.enter_context(
                subprocess.Popen(
                    [JOB_PYTHON, "-u", "-m", "wrapper"],
                    cwd=folder,
                    env=_environment(path, folder, self._workspace, uuid.UUID(int=0)) | self._env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                )
            )
            self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
            self._stdin = cast(IO[bytes], self._process.stdin)
            reader = threading.Thread(target=self._read, args=[self._process.stdout], daemon=True)
            reader.start()
            cleanup.callback(reader.join)
            cleanup.callback(self._stop)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Close stdin, which ends the loop, and remove the job folder."""
        self._cleanup.close()

    def call(self, args: Mapping[str, Any]) -> Job:
        """Run one job in the process and wait for its reply; a process that died gives `ExecutionErr`."""
        started = time.perf_counter()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.write(json.dumps(dict(args)).encode() + b"\n")
            self._stdin.flush()
        logs: list[str] = []
        with _killed_after(self._process, self._timeout):
            while line := self._lines.get().decode(errors="replace"):
                if line.startswith(("wm_res[success]:", "wm_res[error]:")):
                    break
                logs.append(line)
        seconds = time.perf_counter() - started
        log = "".join(logs)
        if not line:
            self._lines.put(b"")
            status = self._process.wait()
            return Job(False, None, _execution_error(status, log), log, seconds)
        kind, _, text = line.partition(":")
        value = json.loads(text)
        if kind == "wm_res[success]":
            return Job(True, value, None, log, seconds)
        return Job(False, None, value, log, seconds)

    def _read(self, output: IO[bytes]) -> None:
        for line in output:
            self._lines.put(line)
        self._lines.put(b"")  # the end, as `readline` says it

    def _stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        with _killed_after(self._process, self._timeout):
            self._process.wait()


def _job_path(script: pathlib.Path | str) -> tuple[str, pathlib.Path]:
    if isinstance(script, str):
        return script, ROOT / f"{script}.py"
    return f"u/test/{script.stem}", script


def _module_file(path: str) -> pathlib.PurePosixPath:
    """Where a Windmill path lies in the job folder: each segment a Python name, the last in lower case."""
    *folders, name = path.replace("-", "_").split("/")
    parts = [f"_{part}" if part[:1].isdigit() else part for part in (*folders, name.lower())]
    return pathlib.PurePosixPath(*parts).with_suffix(".py")


@contextlib.contextmanager
def _job_folder(
    script: pathlib.Path | str, workspace: Workspace | None, beside: Sequence[str], loop: str
) -> Iterator[tuple[pathlib.Path, str]]:
    """Lay out a job folder; gives it and the script's path."""
    path, source = _job_path(script)
    text = source.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="job-") as temporary:
        folder = pathlib.Path(temporary, "job")
        for piece, origin in [(path, source), *((other, ROOT / f"{other}.py") for other in beside)]:
            target = folder / _module_file(piece)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, target)
        loads = bool(_IMPORTS_SCRIPTS.search(text))
        if loads:
            (folder / "loader.py").write_text(_LOADER, encoding="utf-8")
        module = _module_file(path).with_suffix("")
        wrapper = _WRAPPER.format(
            loader="import loader" if loads else "",
            package=".".join(module.parts[:-1]),
            name=module.name,
            parameters=_parameters(text),
            loop=loop,
        )
        (folder / "wrapper.py").write_text(wrapper, encoding="utf-8")
        yield folder, path


def _environment(path: str, folder: pathlib.Path, workspace: Workspace | None, job: uuid.UUID) -> dict[str, str]:
    """Every documented variable; those without a value are empty.

    https://www.windmill.dev/docs/core_concepts/environment_variables
    """
    url, token, name = (workspace.url, workspace.token, workspace.id) if workspace else ("", "", "test")
    url = url.rstrip("/")
    return dict.fromkeys(_VARIABLES, "") | {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder.parent),
        "TZ": "Etc/UTC",
        "BASE_INTERNAL_URL": url,
        "WM_BASE_URL": url,
        "WM_WORKSPACE": name,
        "WM_TOKEN": token,
        "WM_JOB_ID": str(job),
        "WM_JOB_PATH": path,
        "WM_RUNNABLE_ID": path,
        "WM_WORKER_GROUP": "default",
    }


def _parameters(source: str) -> list[str]:
    """The parameters of `main`, which Windmill fills (https://www.windmill.dev/docs/core_concepts/json_schema_and_parsing)."""
    (main,) = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    return [each.arg for each in main.args.args]


def _outcome(file: pathlib.Path, status: int, logs: str) -> tuple[bool, Any]:
    """The job's success and its result or error object; what is not strictly JSON is no result."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError):
        return False, _execution_error(status, logs)
    return status == 0, value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _execution_error(status: int, logs: str) -> dict[str, Any]:
    """The error of a job that left no result."""
    tail = "\n".join(logs.splitlines()[-_LOG_LINES_TOLD:])
    return {
        "name": "ExecutionErr",
        "message": f'exit code for "python run": {status}, last log lines:\n{tail}',
        "exit_code": status,
    }


@contextlib.contextmanager
def _killed_after(process: subprocess.Popen[bytes], seconds: float) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


# Looked up last, so that what lies in the job folder is found there. A path has at least three parts: a
# shorter name is a folder. Whatever goes wrong leaves an empty module, as on a worker; a name below that one
# is missing like any other.
_LOADER = """\
import importlib.machinery
import importlib.util
import os
import pathlib
import sys
import urllib.request

FOLDER = pathlib.Path(__file__).parent
SCRIPTS = f"{os.environ['BASE_INTERNAL_URL']}/api/w/{os.environ['WM_WORKSPACE']}/scripts/raw/p/"
EMPTY = set()


def fetched(name, file):
    request = urllib.request.Request(SCRIPTS + name.replace(".", "/") + ".py")
    request.add_header("Authorization", f"Bearer {os.environ['WM_TOKEN']}")
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text)
    return importlib.util.spec_from_file_location(name, file)


def empty(name, file):
    spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(file.with_suffix(""))]
    return spec


class WorkspaceFinder:
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if parts[0] not in ("f", "u"):
            return None
        file = FOLDER.joinpath(*parts).with_suffix(".py")
        if len(parts) < 3:
            return empty(name, file)
        try:
            return fetched(name, file)
        except Exception:
            if name.rpartition(".")[0] in EMPTY:
                return None
            EMPTY.add(name)
            return empty(name, file)


sys.meta_path.append(WorkspaceFinder())
"""

_WRAPPER = """\
import json
import sys
import traceback
{loader}
from {package} import {name} as inner_script


def arguments(given):
    return dict((name, given.get(name)) for name in {parameters!r})


def encoded(result):
    return json.dumps(result, separators=(",", ":"))


def described(error):
    stack = "".join(traceback.format_tb(error.__traceback__)[1:])
    return dict(message=str(error), name=type(error).__name__, stack=stack)


{loop}"""

# The peak is the process' own account of itself: what its parent could ask for would count the parent's memory too,
# because Linux keeps the highest value over fork and exec.
_JOB_LOOP = """\
import os
import re

with open("args.json") as file:
    given = arguments(json.load(file, strict=False))
status = 0
try:
    text = encoded(inner_script.main(**given))
except BaseException as error:
    status = 1
    told = described(error)
    if error.__dict__:
        told["extra"] = error.__dict__
    text = json.dumps(told, separators=(",", ":"), default=str)
with open("result.json", "w") as file:
    file.write(text)
if os.path.exists("/proc/self/status"):
    with open("/proc/self/status") as file, open("peak_kib", "w") as peak:
        peak.write(re.search(r"VmHWM:\\s*(\\d+)", file.read())[1])
sys.exit(status)
"""

_DEDICATED_LOOP = """\
for line in sys.stdin:
    try:
        reply = "wm_res[success]:" + encoded(inner_script.main(**arguments(json.loads(line, strict=False))))
    except BaseException as error:
        reply = "wm_res[error]:" + json.dumps(described(error), separators=(",", ":"), default=str)
    print(reply)
"""

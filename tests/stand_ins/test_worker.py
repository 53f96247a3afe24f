"""The stand-in for the worker does what Windmill's documentation says of a worker."""

import dataclasses
import http.server
import pathlib
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.standin.worker import Dedicated, run

Script = Callable[[str], pathlib.Path]


@dataclasses.dataclass(frozen=True)
class Server:
    """As much of a Windmill server as the loader needs; `asked` holds path and Authorization, in order."""

    url: str
    asked: list[tuple[str, str]]
    id: str = "acme"
    token: str = "token"  # noqa: S105 - opens nothing


@pytest.fixture
def script(tmp_path: pathlib.Path) -> Script:
    """Writes a script's text to a file of its own."""

    def write(text: str) -> pathlib.Path:
        file = tmp_path / "script.py"
        file.write_text(textwrap.dedent(text), encoding="utf-8")
        return file

    return write


@pytest.fixture
def server() -> Iterator[Server]:
    """Serves one shared script, f/shared/greeting, and 404 for every other."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            found = self.path.endswith("/f/shared/greeting.py")
            self.send_response(200 if found else 404)
            self.end_headers()
            if found:
                self.wfile.write(b"def greet(name):\n    return 'hello ' + name\n")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=[0.01])
        thread.start()
        yield Server(f"http://127.0.0.1:{listener.server_port}", asked)
        listener.shutdown()
        thread.join()


def result_of(file: pathlib.Path, **args: Any) -> Any:
    """The result of a job that must succeed."""
    job = run(file, args)
    assert job.ok, job.error
    return job.result


def test_a_missing_argument_arrives_as_none_and_an_unknown_one_is_ignored(script: Script) -> None:
    """No TypeError on either side: `main` gets exactly its parameters."""
    assert result_of(script("def main(a, b): return [a, b]"), b=1, c=2) == [None, 1]


def test_an_exception_is_stored_with_its_attributes(script: Script) -> None:
    """Name without module, text, the frames from `main` on, and every attribute as `extra`."""
    file = script("""
        class Refused(Exception):
            def __init__(self, text):
                super().__init__(text)
                self.status = 422
                self._seen = {1}

        def main():
            print("about to fail")
            raise Refused("no such field") from ValueError("the cause")
    """)
    job = run(file, {})
    assert (job.ok, job.result, job.logs) == (False, None, "about to fail\n")
    assert job.error is not None
    stack = job.error.pop("stack")
    assert "in main" in stack
    assert "wrapper.py" not in stack
    assert job.error == {
        "name": "Refused",
        "message": "no such field",
        "extra": {"status": 422, "_seen": "{1}"},
    }


def test_an_exception_without_attributes_has_no_extra(script: Script) -> None:
    """One that would end the process is stored like any other."""
    job = run(script("def main(): raise SystemExit(0)"), {})
    assert job.error is not None
    assert job.error.keys() == {"name", "message", "stack"}


@pytest.mark.parametrize(
    "text",
    [
        "import not_installed_anywhere\ndef main(): pass",
        "import os\ndef main():\n    print('last words')\n    os._exit(1)",
        "class E(Exception): pass\ndef main():\n    e = E()\n    e.ratio = float('nan')\n    raise e",
    ],
    ids=["import", "exit", "nan in an attribute"],
)
def test_a_job_without_a_result_is_an_execution_error(script: Script, text: str) -> None:
    """A failing import, a killed process and an error that is no JSON have a log at most."""
    job = run(script(text), {})
    assert job.error is not None
    assert (job.ok, job.error["name"], job.error["exit_code"]) == (False, "ExecutionErr", 1)
    assert job.error["message"].endswith("last log lines:\n" + "\n".join(job.logs.splitlines()[-10:]))


def test_a_job_that_hangs_is_killed(script: Script) -> None:
    """The worker's time limit ends the process."""
    job = run(script("import threading\ndef main(): threading.Event().wait()"), {}, timeout=0.3)
    assert (job.ok, (job.error or {})["exit_code"]) == (False, -9)
    assert job.seconds < 5


def test_a_job_sees_the_documented_variables_only(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own environment is cleared; unset variables are empty; HOME holds no netrc of ours."""
    monkeypatch.setenv("SECRET_OF_THE_WORKER", "x")
    file = script("import os\ndef main(): return dict(os.environ)")
    seen = run(file, {}, env={"EXTRA": "1"}).result
    assert "SECRET_OF_THE_WORKER" not in seen
    assert (seen["EXTRA"], seen["WM_JOB_PATH"], seen["WM_FLOW_JOB_ID"]) == ("1", "u/test/script", "")
    assert seen["WM_JOB_ID"] != run(file, {}).result["WM_JOB_ID"]
    assert not pathlib.Path(seen["HOME"]).exists()


def test_a_shared_script_is_fetched_once_with_the_jobs_token(script: Script, server: Server) -> None:
    """One GET per imported script and job, by the raw path."""
    file = script("from f.shared.greeting import greet\ndef main(name): return greet(name)")
    job = run(file, {"name": "Ada"}, workspace=server)
    assert (job.result, job.error) == ("hello Ada", None)
    assert server.asked == [("/api/w/acme/scripts/raw/p/f/shared/greeting.py", "Bearer token")]


def test_a_shared_script_that_can_not_be_fetched_is_an_empty_module(script: Script, server: Server) -> None:
    """The failure itself is swallowed: what one sees is the name that is missing."""
    file = script("from f.shared.farewell import wave\ndef main(): pass")
    job = run(file, {}, workspace=server)
    assert job.error is not None
    assert job.error["name"] == "ExecutionErr"
    assert "cannot import name 'wave' from 'f.shared.farewell' (unknown location)" in job.error["message"]


def test_memory_is_the_jobs_own(script: Script) -> None:
    """Memory of this process does not count, and memory of the job does."""
    held = bytearray(b"x") * (200 << 20)
    small = run(script("def main(): pass"), {})
    large = run(script("def main(): return len(bytearray(b'x') * (100 << 20))"), {})
    assert len(held) == large.result * 2
    assert small.peak_kib is not None
    assert large.peak_kib is not None
    assert small.peak_kib < 50 << 10 < 100 << 10 < large.peak_kib


COUNTING = """
    count = 0

    def main(step):
        global count
        count += step
        print("counting")
        if count > 3:
            error = ValueError("too many")
            error.count = count
            raise error
        return count
"""


def test_a_dedicated_worker_keeps_the_module(script: Script) -> None:
    """One process, one import; each reply comes with the log since the last."""
    with Dedicated(script(COUNTING)) as worker:
        jobs = [worker.call({"step": 1}), worker.call({"step": 2})]
        assert [(job.ok, job.result, job.logs) for job in jobs] == [
            (True, 1, "counting\n"),
            (True, 3, "counting\n"),
        ]


def test_a_dedicated_worker_tells_an_error_without_attributes_and_goes_on(script: Script) -> None:
    """Its error object has no `extra`."""
    with Dedicated(script(COUNTING)) as worker:
        failed, then = worker.call({"step": 9}), worker.call({"step": -8})
    assert failed.error is not None
    assert failed.error.keys() == {"name", "message", "stack"}
    assert (failed.ok, failed.error["name"], failed.error["message"]) == (False, "ValueError", "too many")
    assert (then.ok, then.result) == (True, 1)


def test_a_dedicated_worker_that_died_says_so_each_time(script: Script) -> None:
    """A failing import shows at the first call, and no call hangs."""
    with Dedicated(script("import not_installed_anywhere\ndef main(): pass")) as worker:
        for job in worker.call({}), worker.call({}):
            assert job.error is not None
            assert (job.ok, job.error["name"], job.error["exit_code"]) == (False, "ExecutionErr", 1)


def test_a_dedicated_worker_reads_placeholders(script: Script) -> None:
    """A key made from WM_JOB_ID would be the same for every job."""
    with Dedicated(script("import os\ndef main(): return os.environ['WM_JOB_ID']")) as worker:
        assert worker.call({}).result == "00000000-0000-0000-0000-000000000000"

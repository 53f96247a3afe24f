"""What the tests of the steps share: a stand-in for Kustomer, a clock that doesn't wait, and a run that is audited."""

import importlib.util
import json
import pathlib
import select
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from f.kustomer.create_message import main
from f.kustomer.shared import errors
from f.kustomer.shared.errors import KustomerError
from tests.single import single
from tests.standin import worker
from tests.standin.adversary import Adversary
from tests.standin.kustomer import Kustomer
from tests.standin.windmill import Workspace

Body = dict[str, Any]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine that runs the tests has no say in them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def kustomer(request: pytest.FixtureRequest) -> Iterator[Kustomer]:
    """A stand-in for Kustomer of the test's own, with the options that it asks for."""
    with Kustomer(**getattr(request, "param", {})) as server:
        yield server


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the step would have slept, in order; no test waits for them."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


def within(waits: Sequence[float], *told: float) -> bool:
    """Whether the waits are those told, each at most a fifth longer."""
    return len(waits) == len(told) and all(low <= wait <= low * 1.2 for wait, low in zip(waits, told, strict=True))


def shown(error: KustomerError, log: str = "") -> str:
    """All that anybody sees of an error, which has nothing hanging on it for a tool that looks."""
    assert (error.__cause__, error.__context__) == (None, None)
    data = [json.dumps(vars(error)), json.dumps(vars(error), ensure_ascii=False)]
    return "\n".join([str(error), repr(error), *data, *traceback.format_exception(error), log])


def spilled(error: KustomerError, *secrets: str) -> list[str]:
    """The secrets that are in an error, as they are or escaped."""
    text = shown(error)
    parts = [part for secret in secrets for part in secret.split('"')]
    return [part for part in parts if any(form in text for form in (part, json.dumps(part)[1:-1], repr(part)[1:-1]))]


@pytest.fixture
def auth(kustomer: Kustomer) -> Body:
    """A resource whose key may do everything that the step needs."""
    return {"apiKey": kustomer.keys["full"], "baseUrl": kustomer.url}


@pytest.fixture
def message(kustomer: Kustomer) -> Body:
    """A realistic message without an externalId."""
    return {
        "channel": "email",
        "direction": "in",
        "app": "acme-inbox",
        "conversation": kustomer.conversation,
        "customer": kustomer.customer,
        "preview": "Hello, where is my order 1042?",
        "subject": "Order 1042",
    }


@dataclass(frozen=True)
class Run:
    """What one run of the step came to: its answer or its error, and how many messages it stored."""

    answer: Body | None
    error: KustomerError | None
    stored: int
    requests: int

    @property
    def failed(self) -> KustomerError:
        """The error; the test fails where there is none."""
        assert self.error is not None, f"the step succeeded: {self.answer}"
        return self.error

    @property
    def id(self) -> str:
        """The id of the message; the test fails where there is an error."""
        assert self.answer is not None, f"the step failed: {self.error!r}"
        return str(self.answer["data"]["id"])


Step = Callable[..., Run]


# What is promised of create_message's requests, answers, outcomes, checks and secrets holds for its single file, too.
# What is left out tries more bodies and answers on the same functions, or other steps.
CONTRACT = {"test_request_and_answer", "test_outcomes", "test_checks", "test_empty_fields", "test_key_stays_secret"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what is in the contract on the modules, and on the single file."""
    if "create_message" in metafunc.fixturenames and metafunc.module.__name__.rpartition(".")[2] in CONTRACT:
        metafunc.parametrize("create_message", ["modules", "single_file"], indirect=True)


@pytest.fixture(scope="session")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The step as one file, for those who have no repository."""
    file = tmp_path_factory.mktemp("single") / "create_message.py"
    file.write_text(single("create_message"), encoding="utf-8")
    return file


@pytest.fixture(scope="session")
def single_file_module(single_file: pathlib.Path) -> Any:
    """The single file, imported."""
    spec = importlib.util.spec_from_file_location("single_file", single_file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def create_message(request: pytest.FixtureRequest) -> Any:
    """The step: its ``main``, and the class of its errors."""
    if getattr(request, "param", "modules") == "modules":
        return SimpleNamespace(main=main, KustomerError=KustomerError)
    return request.getfixturevalue("single_file_module")


@pytest.fixture
def run(kustomer: Kustomer, auth: Body, create_message: Any) -> Step:
    """Runs the step and holds what it says against what the stand-in has seen and stored."""

    def audited(body: object, **other: object) -> Run:
        stored, requests = len(kustomer.messages), len(kustomer.requests)
        posts = len(kustomer.posts)
        answer, error = None, None
        try:
            answer = create_message.main({**auth, **other}, body)
        except create_message.KustomerError as raised:
            # A flow knows an error by its name, and so do the tests: that of the single file is the same one.
            raised.__class__ = getattr(errors, type(raised).__name__)
            error = raised
        found = Run(answer, error, len(kustomer.messages) - stored, len(kustomer.requests) - requests)
        if answer:
            assert answer["data"]["id"] in {each["id"] for each in kustomer.messages}
        if error and error.outcome == "not_sent":
            assert len(kustomer.posts) == posts, "a message left the worker"
        if error and error.outcome in ("not_sent", "rejected"):
            assert found.stored == 0, "a message is on the timeline"
        return found

    return audited


@pytest.fixture(scope="session")
def windmill() -> Iterator[Workspace]:
    """A workspace that has this repository's scripts, which jobs load their shared modules from."""
    with Workspace(scripts_from=worker.ROOT) as workspace:
        yield workspace


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    """A workspace of the test's own, whose object storage and scripts this process may read as a job may."""
    with Workspace(scripts_from=worker.ROOT) as workspace:
        monkeypatch.setenv("BASE_INTERNAL_URL", workspace.url.rstrip("/"))
        monkeypatch.setenv("WM_TOKEN", workspace.token)
        monkeypatch.setenv("WM_WORKSPACE", workspace.id)
        # Nobody here speaks TLS, and the storage's client reads every trusted certificate each time.
        monkeypatch.setenv("SSL_CERT_DIR", "/")
        yield workspace


@pytest.fixture(scope="session")
def adversary_process() -> Iterator[Adversary]:
    """The process that all tests of a session share."""
    with Adversary() as process:
        yield process


@pytest.fixture
def adversary(adversary_process: Adversary) -> Iterator[Adversary]:
    """A server that does what no server should, on stages that close with the test."""
    yield adversary_process
    adversary_process.clear()


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture
def deaf() -> Iterator[int]:
    """A port of a listener whose backlog is full, so that a connection neither comes about nor is refused."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        crowd = [socket.socket() for _ in range(4)]
        for each in crowd:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        select.select([], crowd[:1], [], 1)
        yield port
        for each in crowd:
            each.close()

"""Measure create_message against a naive port of the Hub script, and the import against messages one by one: a table.

Run by `make bench`. Everything is compared within one run, in turns, because a machine's speed changes while one
measures. A missed target is shown, not punished: the exit status is 0.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import pathlib
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import trustme

from tests import bench_history, lock
from tests.bench_history import Figure
from tests.project.test_locks import MOST_JOBS
from tests.single import single
from tests.standin import windmill_locks
from tests.standin.kustomer import Kustomer
from tests.standin.windmill import Workspace
from tests.standin.worker import JOB_PYTHON, ROOT, Dedicated, Job, run

NAIVE = "tests/naive_create_message"
STEP = "f/kustomer/create_message"
SHARED = [f"f/kustomer/shared/{name}" for name in ("errors", "inputs", "wire", "client")]
UPLOAD = "f/kustomer/upload_attachment"
RECORD = "f/kustomer/record_message"

# A file that no worker should hold whole, beside one that costs nothing: bytes.
LARGE, SMALL = 300_000_000, 1000

# As an import on a dedicated worker: one process, the module kept, and the time of the calls alone.
WARM_SCRIPT = """\
import time

from {module} import main as create_message


def main(auth, body, times):
    started = time.perf_counter()
    for _ in range(times):
        create_message(auth, body)
    return (time.perf_counter() - started) / times
"""

ID = "5f3b1c2d4e5f6a7b8c9d0e1f"
AT = "2026-01-02T03:04:05.678Z"

# Every field that Kustomer's page for create-message lists, 32 of them.
FULL_BODY: dict[str, Any] = {
    "id": ID,
    "externalId": "acme-msg-991",
    "customer": ID,
    "conversation": ID,
    "reference": {"message": ID, "type": "replyAll"},
    "channel": "email",
    "preview": "The lamp has not come. " * 40,
    "subject": "Re: Parcel 1042",
    "direction": "in",
    "app": "acme-inbox",
    "size": 920,
    "related": "5f3b1c2d",
    "status": "error",
    "error": {
        "status": 550,
        "code": "bounced",
        "title": "Bounced",
        "detail": "No such mailbox",
        "source": {"pointer": "/to/0"},
        "meta": {"attempt": 2},
        "links": {"about": "https://acme.example/550"},
    },
    "errorAt": AT,
    "auto": False,
    "sentAt": AT,
    "source": "bulk",
    "shortcuts": [ID] * 3,
    "kbArticles": [ID] * 3,
    "attachments": [
        {"_id": ID, "name": f"{page}.pdf", "contentType": "application/pdf", "contentLength": 52_113}
        for page in range(3)
    ],
    "location": {
        "name": "Home",
        "address": "Storgatan 1",
        "address2": "Yard",
        "address3": "3rd floor",
        "latitude": 59.33,
        "longitude": 18.06,
        "countryCode": "SE",
        "countryName": "Sweden",
        "regionCode": "AB",
        "regionName": "Stockholm",
        "cityName": "Stockholm",
        "zipCode": "111 29",
        "areaCode": "08",
    },
    "meta": {"from": "ada@example.com", "to": [{"email": "help@acme.example"}], "cc": []},
    "custom": {"orderNumberStr": "1042", "valueNum": 129.5, "giftBool": False, "noteTxt": None},
    "sentiment": {"polarity": -1, "confidence": 0.75},
    "createdAt": AT,
    "modifiedAt": AT,
    "createdBy": ID,
    "modifiedBy": ID,
    "importedAt": AT,
    "lang": "en",
    "queue": {"id": ID},
}


def check_full_body() -> object:
    """What the step does with a body before it sends it. The one place that names the function for it."""
    from f.kustomer.create_message import Message
    from f.kustomer.shared.inputs import check

    return check(FULL_BODY, Message)


@dataclasses.dataclass(frozen=True)
class Rounds:
    """How often each thing is measured, each time in turn with what it is compared with."""

    jobs: int = 24
    batches: int = 40
    batch: int = 25
    checks: int = 2000
    profiles: int = 7


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: what each turn measured, in `unit`, and the highest ratio wanted.

    The ratio is the median of the turns' ratios, which a change of the machine's speed does not touch.
    """

    what: str
    unit: str
    naive: Sequence[float]
    ours: Sequence[float]
    target: float

    def cells(self) -> list[str]:
        """The line's cells as text."""
        ratio = statistics.median(ours / naive for naive, ours in zip(self.naive, self.ours, strict=True))
        return [
            f"{self.what}, {self.unit}",
            f"{statistics.median(self.naive):.4g}",
            f"{statistics.median(self.ours):.4g}",
            f"{ratio:.2f}",
            f"{self.target:.2f}",
            "reached" if ratio <= self.target else "missed",
        ]


@dataclasses.dataclass(frozen=True)
class Account:
    """Where to post: the argument `auth`, and a body that no limit per customer stops."""

    auth: dict[str, str]
    body: dict[str, Any]


def _serve(files: tuple[str, str] | None, link: "Connection[Any, Any]") -> None:
    """Serve the stand-in until told to stop, without the organisation's limit."""
    tls = None
    if files:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*files)
    with Kustomer(tls) as kustomer:
        kustomer.org_limit = sys.maxsize
        link.send((kustomer.url, kustomer.keys["full"], kustomer.customer, kustomer.conversation))
        link.recv()


@contextlib.contextmanager
def kustomer_process(files: tuple[str, str] | None = None) -> Iterator[Account]:
    """Run the stand-in in a process of its own, so that it takes no time from the one measured."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=_serve, args=(files, far))
    process.start()
    url, key, customer, conversation = near.recv()
    body = {
        "channel": "chat",
        "app": "acme-inbox",
        "direction": "in",
        "preview": "Where is my parcel?",
        "customer": customer,
        "conversation": conversation,
        "importedAt": AT,
    }
    try:
        yield Account({"apiKey": key, "baseUrl": url}, body)
    finally:
        near.send(None)
        process.join()


def in_turns(
    kinds: Mapping[str, Callable[[], Job]], rounds: Rounds
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Run jobs of several kinds in turn: for each kind the times in ms, and the peaks of memory in MiB."""
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    peaks: dict[str, list[float]] = {kind: [] for kind in kinds}
    orders = itertools.cycle(itertools.permutations(kinds))
    for turn, order in zip(range(rounds.jobs + 1), orders, strict=False):
        for kind in order:
            job = kinds[kind]()
            if job.error:
                sys.exit(f"{job.error['name']}: {job.error['message']}")
            if turn:  # the first fills the disk's cache
                times[kind].append(job.seconds * 1000)
                peaks[kind].append((job.peak_kib or 0) / 1024)
    return times, peaks


def cold(rounds: Rounds) -> Iterator[Row]:
    """A whole job process with one message: as on a worker, with the shared modules in place, and as one file."""
    with (
        kustomer_process() as account,
        Workspace(scripts_from=ROOT) as workspace,
        tempfile.TemporaryDirectory() as folder,
    ):
        file = pathlib.Path(folder, "single.py")
        file.write_text(single("create_message"), encoding="utf-8")
        kinds = {
            "naive": lambda: run(NAIVE, dataclasses.asdict(account)),
            "loader": lambda: run(STEP, dataclasses.asdict(account), workspace=workspace),
            "beside": lambda: run(STEP, dataclasses.asdict(account), beside=SHARED),
            "single": lambda: run(file, dataclasses.asdict(account)),
        }
        times, peaks = in_turns(kinds, rounds)
    yield Row("one job, shared modules fetched", "ms", times["naive"], times["loader"], 1.15)
    yield Row("one job, shared modules in place", "ms", times["naive"], times["beside"], 1.15)
    yield Row("one job, in a single file", "ms", times["naive"], times["single"], 1.1)
    yield Row("peak memory of a job", "MiB", peaks["naive"], peaks["loader"], 1.05)


def whole(rounds: Rounds) -> Iterator[Row]:
    """A job that records the first message of a new customer, all of it, beside one that records the message alone."""
    with kustomer_process() as account, Workspace(scripts_from=ROOT) as workspace:
        numbers = itertools.count()

        def event() -> dict[str, Any]:
            number = next(numbers)
            message = {name: account.body[name] for name in ("channel", "app", "direction")}
            new = {"messageId": f"m{number}", "email": f"c{number}@example.com", "text": account.body["preview"]}
            return {"auth": account.auth, "body": message | new}

        kinds = {
            "message": lambda: run(STEP, dataclasses.asdict(account), workspace=workspace),
            "all": lambda: run(RECORD, event(), workspace=workspace),
        }
        times, _ = in_turns(kinds, rounds)
    yield Row("record_message against create_message, a job", "ms", times["message"], times["all"], 1.15)


def warm(
    rounds: Rounds, what: str, target: float, files: tuple[str, str] | None, env: Mapping[str, str]
) -> Iterator[Row]:
    """Messages in one process that keeps the module."""
    with contextlib.ExitStack() as stack:
        account = stack.enter_context(kustomer_process(files))
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        workers: dict[str, Dedicated] = {}
        for path in (NAIVE, STEP):
            script = folder / f"warm_{len(workers)}.py"
            script.write_text(WARM_SCRIPT.format(module=path.replace("/", ".")), encoding="utf-8")
            workers[path] = stack.enter_context(Dedicated(script, env=env, beside=[NAIVE, STEP, *SHARED]))
        times: dict[str, list[float]] = {path: [] for path in workers}
        for turn in range(rounds.batches + 1):
            for path in list(workers)[:: 1 if turn % 2 else -1]:
                job = workers[path].call({**dataclasses.asdict(account), "times": rounds.batch if turn else 5})
                if job.error:
                    sys.exit(f"{job.error['name']}: {job.error['message']}")
                if turn:  # the first imports and connects
                    times[path].append(job.result * 1000)
    yield Row(what, "ms", times[NAIVE], times[STEP], target)


def warm_tls(rounds: Rounds) -> Iterator[Row]:
    """The same over TLS, with an authority of our own."""
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    with tempfile.TemporaryDirectory() as temporary:
        trusted, chain, key = (f"{temporary}/{name}.pem" for name in ("trusted", "chain", "key"))
        authority.cert_pem.write_to_path(trusted)
        issued.private_key_pem.write_to_path(key)
        for part in issued.cert_chain_pems:
            part.write_to_path(chain, append=True)
        env = {"REQUESTS_CA_BUNDLE": trusted, "SSL_CERT_FILE": trusted}
        yield from warm(rounds, "one message, warm, TLS", 0.45, (chain, key), env)


def checking(rounds: Rounds) -> float:
    """Pruning and checking a body with every field: the median in microseconds."""
    check_full_body()
    times = []
    for _ in range(rounds.checks):
        started = time.perf_counter()
        check_full_body()
        times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


def large_file(step: str, body: Callable[[dict[str, str]], dict[str, Any]]) -> float:
    """What a large file from the object storage adds to the peak memory of the job that uploads it, in MiB."""
    peaks = {}
    with kustomer_process() as account, Workspace(scripts_from=ROOT) as workspace:
        for size in (SMALL, LARGE):
            workspace.store(f"{size}.bin", size)
            args = {"auth": account.auth, "body": body({"s3": f"{size}.bin"})}
            job = run(step, args, workspace=workspace)
            if job.error:
                sys.exit(f"{job.error['name']}: {job.error['message']}")
            peaks[size] = (job.peak_kib or 0) / 1024
    return peaks[LARGE] - peaks[SMALL]


def event_with(file: dict[str, str]) -> dict[str, Any]:
    """An event with a file: what record_message takes."""
    return {"channel": "chat", "messageId": file["s3"], "email": "ada@example.com", "files": [file]}


def imports(rounds: Rounds, rows: int = 10) -> Iterator[tuple[str, float]]:
    """What the step imports beyond `requests`: module and its own median time in ms, the slowest first.

    The step's modules are compiled each time, as in a job's new folder.
    """
    own: dict[str, list[float]] = {}
    for _ in range(rounds.profiles):
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(ROOT / "f", f"{folder}/f", ignore=shutil.ignore_patterns("__pycache__"))
            told = subprocess.run(
                [JOB_PYTHON, "-X", "importtime", "-c", f"import requests, {STEP.replace('/', '.')}"],
                cwd=folder,
                capture_output=True,
                check=True,
                text=True,
            ).stderr
        _, _, beyond = told.partition("| requests\n")
        for microseconds, module in re.findall(r"import time: +(\d+) \| +\d+ \| +(\S+)", beyond):
            own.setdefault(module, []).append(int(microseconds) / 1000)
    middle = {module: statistics.median(times) for module, times in own.items()}
    yield "together", sum(middle.values())
    yield from sorted(middle.items(), key=lambda item: -item[1])[:rows]


def measure(rounds: Rounds) -> Iterator[Row | Figure]:
    """Every row of the table, one group after the other."""
    yield from cold(rounds)
    yield from whole(rounds)
    yield from warm(rounds, "one message, warm", 0.85, None, {})
    yield from warm_tls(rounds)
    yield Figure(f"check of a body with all {len(FULL_BODY)} fields, µs", checking(rounds), 150)
    jobs = windmill_locks.jobs(lock.SOURCES, lock.SOURCES)
    yield Figure("dependency jobs of a first deploy", len(jobs), MOST_JOBS)
    for step, body in (UPLOAD, lambda file: {"file": file}), (RECORD, event_with):
        what = f"{LARGE // 1_000_000} MB in {step.rpartition('/')[2]}, MiB more"
        yield Figure(what, large_file(step, body), 32)


def main() -> None:
    """Measure and print."""
    rounds = Rounds()
    line = "{:<42}{:>10}{:>10}{:>8}{:>8}  {}".format
    print(line("median of", "naive", "ours", "ratio", "target", ""))
    for row in measure(rounds):
        print(line(*row.cells()), flush=True)
    print("\n" + line("import of a history", "one by one", "ours", "", "target", ""))
    for figure in bench_history.measure():
        print(line(*figure.cells()), flush=True)
    print("\nimports of the step beyond requests, ms of their own")
    for module, milliseconds in imports(rounds):
        print(f"  {module:<40}{milliseconds:>10.2f}")


if __name__ == "__main__":
    main()

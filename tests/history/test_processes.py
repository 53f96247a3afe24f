"""Real processes: one is killed with SIGKILL and its notes lie in a real object storage; another reads a long file."""

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from f.kustomer.history.jobs import DEAD_SECONDS
from tests.history.conftest import KEY, Site, history
from tests.history.test_jobs import SUBMITS
from tests.standin.bulk import Bulk
from tests.standin.faults import Fault
from tests.standin.windmill import Workspace
from tests.standin.worker import ROOT

# An import in a process of its own, whose clock doesn't wait either.
IMPORT = """
import json, sys, time
from f.kustomer.history.jobs import clock
at = [0.0]
def sleep(seconds): at[0] += seconds
time.sleep, clock.now = sleep, lambda: at[0]
from f.kustomer.import_messages import main
print(json.dumps(main(*json.loads(sys.argv[1]))))
"""
# Reads and plans a file of so many rows, and tells the peak of its memory in kB.
READ = """
import io, json, resource, sys
from f.kustomer import import_messages
rows, wrong = int(sys.argv[1]), sys.argv[2] == "wrong"
class Made(io.RawIOBase):
    at, rest = 0, b""
    def readable(self): return True
    def seekable(self): return True
    def seek(self, at, whence=0):
        self.at, self.rest = 0, b""
        return 0
    def readinto(self, buffer):
        while not self.rest and self.at < rows:
            self.at += 1
            row = {"messageId": f"m{self.at}", "threadId": f"t{self.at % (rows // 5)}"}
            row |= {"email": f"c{self.at}@example.com", "sentAt": "2020-01-31T09:30:00Z"}
            row |= {"sentAt": "soon", "phone": "none"} if wrong else {}
            row |= {"channel": "email", "direction": "in", "text": "x" * 500}
            self.rest = json.dumps(row).encode() + b"\\n"
        part, self.rest = self.rest[: len(buffer)], self.rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)
given = {"content": "", "name": "x.ndjson", "app": "a"}
file = io.BufferedReader(Made())
plan = import_messages._plan(given, file)
import_messages._read_rows(given, file, plan)
if wrong:
    from f.kustomer.shared import storage
    def write(stored, content):
        while content.read(1 << 16): pass
    storage.write = write
    assert plan.counts()["refused"] == rows
    assert import_messages._write_refused({**given, "file": {"s3": "x"}}, file, plan)
else:
    assert plan.rows == rows and plan.counts()["left"] == rows
    threads = plan.threads(0, 0, 500)
    assert sum(len(plan.message(row).body["preview"]) for row in plan.order(threads)) >= 500 * 500
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def begin(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start a Python process that runs this."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("at", "store"), [(SUBMITS[1], False), (SUBMITS[2], True)], ids=["not stored", "stored"])
def test_a_process_killed_under_a_submit_is_made_good_by_the_next(
    site: Site, workspace: Workspace, at: str, store: bool
) -> None:
    """By what it has noted in Windmill's object storage, through the real client."""
    rows = history(30, threads=8)
    workspace.store(KEY, "".join(f"{json.dumps(each)}\n" for each in rows).encode())
    site.kustomer.jobs.bulk = Bulk(delay=0, per_item=0)
    site.kustomer.fault(Fault.hang(at=at, store=store))
    given = {"file": {"s3": KEY}, "app": "old-helpdesk", "fresh": True}
    with begin(IMPORT, json.dumps([site.auth, given])) as process:
        ends = time.monotonic() + 60
        while not any(seen.path == at for seen in list(site.kustomer.requests)):
            assert process.poll() is None
            assert time.monotonic() < ends
        os.kill(process.pid, signal.SIGKILL)
    site.kustomer.release()
    assert process.returncode == -signal.SIGKILL
    notes = [json.loads(each) for key, each in workspace.stored().items() if "part-0000" in key]
    assert [each["under_way"]["job"] for each in notes] == [None]
    site.kustomer.advance(2 * DEAD_SECONDS)
    result = site.run(fresh=True)
    assert result["created"] + result["already"] == 30
    site.assert_once(rows)


def test_an_import_runs_as_a_process(site: Site, workspace: Workspace) -> None:
    """From its first request to its result, which is JSON."""
    rows = history(30, threads=8)
    workspace.store(KEY, "".join(f"{json.dumps(each)}\n" for each in rows).encode())
    site.kustomer.jobs.bulk = Bulk(delay=0, per_item=0)
    given: dict[str, Any] = {"file": {"s3": KEY}, "app": "old-helpdesk"}
    with begin(IMPORT, json.dumps([site.auth, given])) as process:
        said, _ = process.communicate(timeout=60)
    assert json.loads(said.splitlines()[-1])["created"] == 30
    site.assert_once(rows)


@pytest.mark.parametrize("rows_are", ["right", "wrong"])
def test_memory_is_flat(rows_are: str) -> None:
    """Six times the rows take the same memory, within a few MB: they lie on the disk, and so do refused ones."""
    peaks = []
    for rows in (5_000, 30_000):
        with begin(READ, str(rows), rows_are) as process:
            said, _ = process.communicate(timeout=100)
        peaks.append(int(said))
    assert peaks[1] - peaks[0] < 8_000

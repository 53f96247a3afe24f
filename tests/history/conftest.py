"""What the tests of the import share: Kustomer and Windmill's storage as stand-ins, and a clock that both live by."""

import io
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from f.kustomer.history.jobs import clock as import_clock
from f.kustomer.import_messages import main
from f.kustomer.shared import storage
from f.kustomer.shared.errors import FileNotRead
from tests.standin.bulk import Bulk
from tests.standin.kustomer import Kustomer
from tests.standin.windmill import Workspace

Body = dict[str, Any]

ROLES = (
    "org.permission.message.create",
    "org.permission.message.read",
    "org.permission.conversation.create",
    "org.permission.conversation.read",
    "org.permission.customer.create",
    "org.permission.customer.read",
    "org.permission.bulk.read",
)
KEY = "inbox/history.ndjson"
READ, WRITE = storage.read, storage.write


def history(rows: int, threads: int = 5, customers: int = 3, seed: int = 0) -> list[Body]:
    """A realistic history: each thread is with one customer, and dates go up."""
    made = random.Random(seed)
    found = []
    for number in range(rows):
        thread = made.randrange(threads)
        found.append(
            {
                "messageId": f"<{number}@mail.example>",
                "threadId": f"thread-{thread}",
                "email": f"customer-{thread % customers}@example.com",
                "channel": "email",
                "direction": made.choice(["in", "out"]),
                "subject": f"Order {thread}",
                "text": f"Text of message {number}",
                "sentAt": f"2020-01-{1 + number // 1440 % 28:02}T{number // 60 % 24:02}:{number % 60:02}:00.000Z",
            }
        )
    return found


class Site:
    """An organisation on Kustomer and a workspace's object storage, and an import from the one to the other."""

    def __init__(self, kustomer: Kustomer, files: dict[str, bytes]) -> None:
        """Take the organisation's server, and what is in the storage."""
        self.kustomer, self.files = kustomer, files
        self.token = kustomer.key(*ROLES, "org.admin")

    @property
    def auth(self) -> Body:
        """The resource that the import is given."""
        return {"apiKey": self.token, "baseUrl": self.kustomer.url}

    def put(self, rows: list[Body]) -> None:
        """Put a history into the object storage."""
        self.files[KEY] = "".join(f"{json.dumps(each)}\n" for each in rows).encode()

    def clear(self) -> None:
        """Forget all that was recorded and noted."""
        self.kustomer.clear()
        for key in self.files.keys() - {KEY}:
            del self.files[key]

    def run(self, **given: Any) -> Body:
        """Import the history that was put; its numbers must add up."""
        source = {} if "content" in given else {"file": {"s3": KEY}}
        body: Any = {**source, "app": "old-helpdesk", **given}
        result = main(self.auth, body)  # type: ignore[arg-type]
        parts = ("created", "already", "refused", "unknown", "left")
        assert result["rows"] == sum(result[each] for each in parts), result
        assert json.loads(json.dumps(result)) == result
        return result

    def recorded(self) -> Counter[str]:
        """How often each message is on record, by its id."""
        return Counter(each["attributes"]["externalId"] for each in self.kustomer.messages)

    def timelines(self) -> dict[str, list[str]]:
        """The texts of each thread, as its timeline shows them."""
        return {
            each["attributes"]["externalId"]: [
                message["attributes"]["preview"] for message in self.kustomer.timeline(each["id"])
            ]
            for each in self.kustomer.conversations
        }

    def assert_once(self, rows: list[Body]) -> None:
        """Each message, thread and customer is there once, and each thread is in order."""
        assert self.recorded() == Counter(dict.fromkeys((each["messageId"] for each in rows), 1))
        threads = Counter(each["attributes"]["externalId"] for each in self.kustomer.conversations)
        assert threads == Counter(dict.fromkeys((each["threadId"] for each in rows), 1))
        emails = Counter(each["attributes"]["emails"][0]["email"] for each in self.kustomer.customers)
        assert emails == Counter(set(emails))
        wanted: dict[str, list[str]] = {}
        for each in sorted(rows, key=lambda row: str(row["sentAt"])):
            wanted.setdefault(each["threadId"], []).append(each["text"])
        assert self.timelines() == wanted


@pytest.fixture(scope="session")
def server() -> Iterator[Kustomer]:
    """A stand-in for Kustomer, for all tests."""
    with Kustomer() as kustomer:
        yield kustomer


@pytest.fixture
def waited(server: Kustomer, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits so far; each lets time pass on Kustomer's clock and on the import's, and on no other."""
    server.now = time.time
    server.advance(0)
    slept: list[float] = []
    at = [1000.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        at[0] += seconds
        server.advance(seconds)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "time", lambda: server.now())
    monkeypatch.setattr(import_clock, "now", lambda: at[0])
    return slept


def store_in(monkeypatch: pytest.MonkeyPatch, read: Any, write: Any) -> None:
    """Let the import read and write its files so."""
    monkeypatch.setattr(storage, "read", read)
    monkeypatch.setattr(storage, "write", write)


@pytest.fixture
def site(server: Kustomer, waited: list[float], monkeypatch: pytest.MonkeyPatch) -> Site:
    """Kustomer as if it were new, and an empty storage: a dict, as many runs write to it many times."""
    server.clear()
    server.org_limit = 1_000_000
    server.jobs.bulk = Bulk()
    server.tell_reset = False
    files: dict[str, bytes] = {}

    def read(stored: Body, path: str = "") -> io.BytesIO:
        if stored["s3"] not in files:
            raise FileNotRead("404: it is not there", status=404)
        return io.BytesIO(files[stored["s3"]])

    def write(stored: Body, content: Any, path: str = "") -> None:
        files[stored["s3"]] = content if isinstance(content, bytes) else content.read()

    store_in(monkeypatch, read, write)
    return Site(server, files)


@pytest.fixture
def workspace(site: Site, storage: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace whose object storage takes the place of the dict, and whose job this process is."""
    store_in(monkeypatch, READ, WRITE)
    monkeypatch.setenv("WM_JOB_ID", "0190")
    return storage

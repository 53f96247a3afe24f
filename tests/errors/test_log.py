"""A log that can't be written keeps no message from being recorded, and no result from being returned."""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from typing import Any, TextIO

import pytest

from f.kustomer.create_message import main
from f.kustomer.shared.errors import InvalidInput, ServerFailed
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body
from tests.standin.kustomer import Fault, Kustomer


@contextmanager
def closed_pipe() -> Iterator[TextIO]:
    """As where whoever read the log has gone."""
    reads, writes = os.pipe()
    os.close(reads)
    log = open(writes, "w", encoding="utf-8")  # noqa: SIM115 - closing it fails too
    try:
        yield log
    finally:
        with suppress(BrokenPipeError):
            log.close()


@contextmanager
def full_disk() -> Iterator[TextIO]:
    """As where the log goes to a file."""
    log = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115 - closing it fails too
    try:
        yield log
    finally:
        with suppress(OSError):
            log.close()


@contextmanager
def ascii_only() -> Iterator[TextIO]:
    """As under LANG=C on some systems."""
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict") as log:
        yield log


@contextmanager
def closed() -> Iterator[TextIO]:
    """As where somebody has closed it."""
    log = io.StringIO()
    log.close()
    yield log


@contextmanager
def none() -> Iterator[Any]:
    """As where a process has no standard streams."""
    yield None


LOGS = [closed_pipe, full_disk, ascii_only, closed, none]
# The log tells the id: this one has a character that ASCII doesn't.
ANSWER = {"data": {"type": "message", "id": "65a1b2c3d4e5f60718293a4é", "attributes": {}}}


Log = Callable[[], AbstractContextManager[TextIO]]

without_a_log = pytest.mark.parametrize("log", LOGS, ids=lambda log: log.__name__)


@without_a_log
def test_a_recorded_message_is_returned(kustomer: Kustomer, auth: Body, message: Body, log: Log) -> None:
    """Else the job would fail, and be run again."""
    kustomer.fault(Fault.answer(201, ANSWER, store=True))
    with log() as stream, redirect_stdout(stream):
        answer = main(auth, message)  # type: ignore[arg-type]
    assert answer == ANSWER
    assert len(kustomer.messages) == 1


@without_a_log
def test_a_wait_that_is_not_told_is_a_wait(
    kustomer: Kustomer, auth: Body, message: Body, waits: list[float], log: Log
) -> None:
    """The message is recorded after it."""
    kustomer.fault(Fault.answer(429))
    with log() as stream, redirect_stdout(stream):
        main(auth, message)  # type: ignore[arg-type]
    assert (len(waits), len(kustomer.messages)) == (1, 1)


@without_a_log
@pytest.mark.parametrize(("body", "problem"), [({}, InvalidInput), (None, ServerFailed)], ids=["input", "503"])
def test_an_error_is_that_of_the_step(
    kustomer: Kustomer, auth: Body, message: Body, body: Any, problem: type[Exception], log: Log
) -> None:
    """And not of the log."""
    kustomer.fault(Fault.answer(503, {"errors": [{"title": "é"}]}))
    with log() as stream, redirect_stdout(stream), pytest.raises(problem):
        main(auth, message if body is None else body)  # type: ignore[arg-type]


@without_a_log
def test_an_uploaded_file_is_returned(kustomer: Kustomer, auth: Body, log: Log) -> None:
    """Each of its two lines may fail."""
    with log() as stream, redirect_stdout(stream):
        made = upload(auth, {"content": "AAAA", "name": "a.txt"})  # type: ignore[arg-type]
    assert kustomer.files[made["_id"]].size == 3


def test_a_log_that_lacks_a_character_has_the_rest(kustomer: Kustomer, auth: Body, message: Body) -> None:
    """The line is worth reading without it."""
    kustomer.fault(Fault.answer(201, ANSWER, store=True))
    with ascii_only() as log:
        with redirect_stdout(log):
            main(auth, message)  # type: ignore[arg-type]
        log.flush()
        assert b"kustomer: 201, message 65a1b2c3d4e5f60718293a4" in log.buffer.getvalue()  # type: ignore[attr-defined]

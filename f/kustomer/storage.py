# Windmill looks for imports at the top of a script only, and wmill is imported where it is needed.
# extra_requirements:
# wmill
"""Kustomer storage.

Shared by the Kustomer steps, not run by itself: reads and writes files in Windmill's object storage, within limits of
time. https://www.windmill.dev/docs/core_concepts/object_storage_in_windmill
"""

import io
import tempfile
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

from f.kustomer.errors import LONGEST_REASON, FileNotRead, FileNotWritten, KustomerError
from f.kustomer.wire import file_pace

# Large enough to be quick, small enough for a worker with little memory.
CHUNK_BYTES = 1 << 18


def read(stored: dict[str, Any], path: str = "body.file") -> BinaryIO:
    """Copy a file from the object storage to the worker's disk, so that its size comes first and tries can repeat it.

    ``stored`` is ``{"s3": key, "storage": name or nothing}``, ``path`` its place in the step's arguments. Return the
    copy, at its start; who asked closes it. Raise FileNotRead.
    """
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it

    def copy() -> None:
        import wmill  # a tenth of a second, which only a file from the storage pays

        windmill = wmill.Windmill()  # type: ignore[no-untyped-call]
        with windmill.client, windmill.load_s3_file_reader(wmill.S3Object(stored), None) as reader:
            while chunk := reader.read(CHUNK_BYTES):
                file.write(chunk)

    if error := _watched(copy, file.tell):
        file.close()
        raise _failure(FileNotRead, "read from", error, path)
    file.seek(0)
    return file


def write(stored: dict[str, Any], content: bytes, path: str = "body.file") -> None:
    """Write a whole file to the object storage, in place of what is there. Raise FileNotWritten."""
    raw = io.BytesIO(content)

    def put() -> None:
        import wmill

        windmill = wmill.Windmill()  # type: ignore[no-untyped-call]
        with windmill.client:
            windmill.write_s3_file(wmill.S3Object(stored), io.BufferedReader(raw), None)

    if error := _watched(put, raw.tell):
        raise _failure(FileNotWritten, "written to", error, path)


def _watched(work: Callable[[], None], moved: Callable[[], int]) -> Exception | None:
    """Do ``work`` while it moves enough bytes, as wmill itself would wait for ever; return what went wrong."""
    failed: list[Exception] = []

    def attempt() -> None:
        try:
            work()
        except Exception as error:  # what httpx raises, OSError for a full disk, AssertionError outside of Windmill
            failed.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    before = 0
    while True:
        least, seconds = file_pace()
        thread.join(seconds)
        if not thread.is_alive():
            return failed[0] if failed else None
        now = moved()
        if now - before < least:
            return TimeoutError(f"less than {least / 1000:,.0f} kB in {seconds:g} s")
        before = now


def _failure(kind: type[KustomerError], done_verb: str, error: Exception, path: str) -> KustomerError:
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    response = getattr(error, "response", None)
    status, said = None, str(error) if isinstance(error, TimeoutError) else ""
    if response is not None:
        # What the libraries say may quote the token too, so that only the server's own words are told.
        token = response.request.headers["Authorization"].removeprefix("Bearer ")
        status, said = response.status_code, " ".join(response.text.replace(token, "[...]").split())[:LONGEST_REASON]
    passing = status >= 500 or status == 429 if status else not isinstance(error, (AssertionError, ValueError))
    name = type(error).__name__
    text = (
        f"{status}:" if status else "",
        f"The file could not be {done_verb} Windmill's object storage ({said or name}).",
        "This run sent nothing to Kustomer. Check that the file is there, that the workspace has object storage,",
        "and that whoever runs this may use it.",
        "Running the step again is safe." if passing else "",
    )
    return kind(
        " ".join(filter(None, text)),
        status=status,
        outcome="not_sent",
        retryable=passing,
        errors=[{"code": name, "title": None, "detail": said or None, "path": path}],
    )

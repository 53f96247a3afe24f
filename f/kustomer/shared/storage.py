"""Kustomer storage.

Shared by the Kustomer steps, not run by itself: reads and writes files in Windmill's object storage, within limits of
time. https://www.windmill.dev/docs/core_concepts/object_storage_in_windmill
"""

import io
import tempfile
from contextlib import suppress
from typing import Any, BinaryIO

from f.kustomer.shared.errors import LONGEST_REASON, FileNotRead, FileNotWritten, KustomerError
from f.kustomer.shared.wire import CHUNK_BYTES, Watch, time_for


def read(stored: dict[str, Any], path: str = "body.file") -> BinaryIO:
    """Copy a file from the object storage to the worker's disk, so that its size comes first and tries can repeat it.

    ``stored`` is ``{"s3": key, "storage": name or nothing}``, ``path`` its place in the step's arguments. Return the
    copy, at its start; who asked closes it. Raise FileNotRead.
    """
    import wmill  # a tenth of a second, which only a file from the storage pays

    watch = Watch(time_for(0))
    file: Any = None

    def copy() -> None:
        nonlocal file
        with watch.lock:  # nobody would close what is opened once nobody waits
            if watch.over:
                raise TimeoutError
            file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        windmill = wmill.Windmill()  # type: ignore[no-untyped-call]
        windmill.client.event_hooks = {"response": [_refuse]}
        with windmill.client, windmill.load_s3_file_reader(wmill.S3Object(stored), None) as reader:
            while chunk := reader.read1(CHUNK_BYTES):
                file.write(chunk)
                watch.moved(len(chunk))
        file.seek(0)  # which writes the last bytes

    if error := watch.run(copy):
        with suppress(AttributeError, OSError):  # there is none, or a full disk is told twice
            file.close()
        raise _failure(FileNotRead, "read from", error, path)
    copied: BinaryIO = file
    return copied


def write(stored: dict[str, Any], content: bytes | BinaryIO, path: str = "body.file") -> None:
    """Write a whole file to the object storage, in place of what is there. Raise FileNotWritten.

    A ``content`` that is a file is read from its start.
    """
    import wmill

    length = len(content) if isinstance(content, bytes) else content.seek(0, 2)
    payload: Any = content
    if not isinstance(content, bytes):
        content.seek(0)
        payload = io.BufferedReader(content)

    def put() -> None:
        windmill = wmill.Windmill()  # type: ignore[no-untyped-call]
        with windmill.client:
            windmill.write_s3_file(wmill.S3Object(stored), payload, None)

    if error := Watch(time_for(length)).run(put):
        raise _failure(FileNotWritten, "written to", error, path)


class _Refusal(Exception):
    """What the storage answered instead of a file."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status, self.said = status, said


def _refuse(response: Any) -> None:
    """Read the beginning of what is no file; wmill would read all of it, and take a redirect for an empty file."""
    if response.status_code < 300:
        return
    said = b""
    for chunk in response.iter_bytes(LONGEST_REASON):
        said += chunk
        if len(said) >= LONGEST_REASON:
            break
    token = response.request.headers["Authorization"].removeprefix("Bearer ")
    raise _Refusal(response.status_code, said.decode("utf-8", "replace").replace(token, "[...]"))


def _failure(kind: type[KustomerError], done_verb: str, error: Exception, path: str) -> KustomerError:
    error = error.__cause__ if isinstance(error.__cause__, Exception) else error
    # What the libraries say may quote the token, so that only our own words and the server's are told.
    status = error.status if isinstance(error, _Refusal) else None
    disk = f"the worker's disk: {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
    said = disk or (str(error) if isinstance(error, (_Refusal, TimeoutError)) else "")
    said = "".join(each if each.isprintable() else " " for each in " ".join(said.split()))[:LONGEST_REASON]
    passing = status >= 500 or status == 429 if status else not isinstance(error, (AssertionError, ValueError))
    name = "refused" if status else type(error).__name__
    # What is written tells of what was done: only of what is read is known that nothing was sent.
    reading = kind is FileNotRead
    text = (
        f"{status}:" if status else "",
        f"The file could not be {done_verb} Windmill's object storage ({said or name}).",
        "Nothing of it was sent to Kustomer." if reading else "",
        f"Check that {'the file is there, that ' if reading else ''}the workspace has object storage,",
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

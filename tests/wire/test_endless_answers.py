"""READ_SECONDS is an end: whatever an answer does for ever, it does no longer, and the outcome is told truly."""

import base64
import json
import zlib
from pathlib import Path

import pytest

from f.kustomer.create_message import main
from f.kustomer.shared import wire
from f.kustomer.shared.errors import KustomerError, NoAnswer, OddAnswer, RateLimited, Rejected, ServerFailed
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body, Step
from tests.other_steps.test_upload_attachment import place
from tests.standin.adversary import Adversary, Stage, read, send, send_for_ever
from tests.standin.adversary import Step as Play
from tests.standin.kustomer import Kustomer
from tests.wire.conftest import ends

# Instead of the 30 s for an answer.
READ = 0.15
# Between the pieces of what drips: several come within the limit.
DRIP = READ / 10


def chunk(data: bytes) -> bytes:
    """A piece of a chunked answer."""
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GZIPPED = HEAD + b"Content-Encoding: gzip\r\n\r\n"

GZIP = zlib.compressobj(9, wbits=31)
GZIP_HEAD = GZIP.compress(b"{") + GZIP.flush(zlib.Z_FULL_FLUSH)
# 64 kB of blanks in a hundred bytes, which stand on their own and so can be repeated.
GZIP_BLOCK = GZIP.compress(b" " * (1 << 16)) + GZIP.flush(zlib.Z_FULL_FLUSH)
GZIP_NOTHING = b"\x00\x00\x00\xff\xff"

# How an answer begins, and what then comes again and again.
WAYS: dict[str, tuple[bytes, bytes]] = {
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "102 Processing": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "103 Early Hints": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"),
    "headers of 100": (b"HTTP/1.1 100 Continue\r\n", b"X-A: b\r\n"),
    "headers of 103": (b"HTTP/1.1 103 Early Hints\r\n", b"Link: </style.css>\r\n"),
    "a header of 103": (b"HTTP/1.1 103 Early Hints\r\nLink: ", b"x"),
    "the status": (b"HTTP/1.1 2", b"0"),
    "the status line": (b"HTTP/1.1 201 ", b"Created "),
    "the name of a header": (HEAD, b"x"),
    "a header": (HEAD + b"X-A: ", b"x"),
    "a folded header": (HEAD + b"X-A: b\r\n", b" x\r\n"),
    "headers": (HEAD, b"X-A: b\r\n"),
    "a body of a length": (HEAD + b"Content-Length: 99999999999\r\n\r\n{", b" "),
    "a body of no length": (HEAD + b"\r\n{", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "a chunk": (CHUNKED + b"7fffffff\r\n", b" "),
    "the size of a chunk": (CHUNKED, b"0"),
    "the extension of a chunk": (CHUNKED + b"1;", b"x"),
    "trailers": (CHUNKED + b"1\r\n{\r\n0\r\n", b"X-A: b\r\n"),
    "a trailer": (CHUNKED + b"1\r\n{\r\n0\r\nX-A: ", b"x"),
    "gzip": (GZIPPED + GZIP_HEAD, GZIP_BLOCK),
    "gzip of nothing": (GZIPPED + GZIP_HEAD, GZIP_NOTHING),
    "the head of gzip": (GZIPPED + b"\x1f\x8b\x08\x08\0\0\0\0\0\xff", b"x"),
    "gzip in chunks": (CHUNKED[:-2] + b"Content-Encoding: gzip\r\n\r\n" + chunk(GZIP_HEAD), chunk(GZIP_BLOCK)),
}
# These end at once: http.client takes them for an answer, which is an odd one.
INFORMATIONAL = {"102 Processing", "103 Early Hints"}
# Here there is too much before it is too late: megabytes of answer, or of one header.
TOO_MUCH = (NoAnswer, OddAnswer)

Problem = type[KustomerError]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit that a test can wait for."""
    monkeypatch.setattr(wire, "READ_SECONDS", READ)


def playing(adversary: Adversary, way: str, pause: float, head: bytes = HEAD, tls: Path | None = None) -> Stage:
    """A stage whose answer to any request has no end in this way; ``head`` may have another status."""
    begins, comes = WAYS[way]
    steps: list[Play] = [read(), send(begins.replace(HEAD, head))] if begins else [read()]
    return adversary.play([*steps, send_for_ever(comes, pause)], tls=tls)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("way", [way for way in WAYS if way not in INFORMATIONAL])
def test_an_answer_that_drips_for_ever_is_given_up(
    adversary: Adversary, run: Step, message: Body, waits: list[float], way: str
) -> None:
    """Every piece of it comes in time, and the whole doesn't."""
    stage = playing(adversary, way, DRIP)
    with ends(READ, READ):
        error = run(message, baseUrl=stage.url).failed
    assert (type(error), error.outcome, error.retryable, error.attempts) == (NoAnswer, "unknown", False, 1)
    assert f"no complete answer within {READ} s" in str(error)
    assert (len(stage.requests), waits) == (1, [])


@pytest.mark.timeout(5)
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_that_rushes_for_ever_is_given_up(
    adversary: Adversary, run: Step, message: Body, waits: list[float], way: str
) -> None:
    """Either it is too much, or it is too late: it is never waited for longer."""
    stage = playing(adversary, way, 0)
    with ends(0, READ):
        error = run(message, baseUrl=stage.url).failed
    assert (error.outcome, error.retryable, error.attempts) == ("unknown", False, 1)
    assert isinstance(error, TOO_MUCH)
    assert (len(stage.requests), waits) == (1, [])


REFUSALS: dict[str, tuple[Problem, str]] = {
    "400 Bad Request": (Rejected, "rejected"),
    "429 Too Many Requests": (RateLimited, "rejected"),
    "503 Service Unavailable": (ServerFailed, "unknown"),
}


@pytest.mark.timeout(5)
@pytest.mark.parametrize("pause", [0, DRIP], ids=["rushing", "dripping"])
@pytest.mark.parametrize("way", ["a body of no length", "the size of a chunk", "trailers"])
@pytest.mark.parametrize("status", REFUSALS)
def test_a_refusal_without_an_end_is_a_refusal(
    adversary: Adversary, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch, status: str, way: str, pause: float
) -> None:
    """Its status was read, and that is what counts."""
    monkeypatch.setattr("f.kustomer.shared.client.LIMITED_ATTEMPTS", 1)
    stage = playing(adversary, way, pause, HEAD.replace(b"201 Created", status.encode()))
    with ends(0, READ):
        error = run(message, baseUrl=stage.url).failed
    problem, outcome = REFUSALS[status]
    assert (type(error), error.outcome, error.status, error.attempts) == (problem, outcome, int(status[:3]), 1)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("way", ["100 Continue", "headers", "trailers"])
def test_a_look_up_without_an_end_is_given_up(
    adversary: Adversary, run: Step, message: Body, waits: list[float], way: str
) -> None:
    """After three tries, and the message is not sent."""
    stage = playing(adversary, way, DRIP)
    with ends(3 * READ, 3 * READ):
        error = run(message | {"externalId": "order-1042"}, baseUrl=stage.url).failed
    assert (type(error), error.outcome, error.retryable, error.attempts) == (NoAnswer, "not_sent", True, 3)
    assert (len(stage.requests), len(waits)) == (3, 2)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("pause", [0, DRIP], ids=["rushing", "dripping"])
@pytest.mark.parametrize("way", ["100 Continue", "a body of no length", "trailers"])
def test_tls_gives_no_answer_more_time(
    adversary: Adversary, run: Step, message: Body, pem: Path, way: str, pause: float
) -> None:
    """The limit counts what comes out of it."""
    stage = playing(adversary, way, pause, tls=pem)
    with ends(READ if pause else 0, READ):
        error = run(message, baseUrl=f"https://localhost:{stage.port}").failed
    assert (error.outcome, error.retryable, len(stage.requests)) == ("unknown", False, 1)
    assert isinstance(error, NoAnswer if pause else TOO_MUCH)


@pytest.mark.timeout(5)
@pytest.mark.parametrize("pause", [0, DRIP], ids=["rushing", "dripping"])
@pytest.mark.parametrize("way", ["100 Continue", "a body of no length", "the size of a chunk"])
def test_an_upload_s_host_has_no_more_time(
    adversary: Adversary, kustomer: Kustomer, auth: Body, way: str, pause: float
) -> None:
    """Its answers end as Kustomer's do, and the file may be sent again."""
    stage = playing(adversary, way, pause)
    kustomer.fault(place(stage.url))
    with ends(0, 3 * READ), pytest.raises(TOO_MUCH) as caught:
        upload(auth, {"content": base64.b64encode(b"file").decode(), "name": "a.txt"})  # type: ignore[arg-type]
    assert (caught.value.outcome, caught.value.retryable) == ("unknown", True)
    assert len(stage.requests) <= 3


def test_an_answer_just_within_its_limits_is_taken(
    adversary: Adversary, auth: Body, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ninety headers, a long one, many chunks, trailers, and informational answers before all that."""
    monkeypatch.setattr(wire, "READ_SECONDS", 20.0)
    body = b'{"data": {"id": "65a1b2c3d4e5f60718293a4b", "text": "%b"}}' % (b"x" * 9_000_000)
    headers = b"".join(b"X-%d: %b\r\n" % (number, b"b" * 300) for number in range(90))
    chunks = b"".join(chunk(body[at : at + 50_000]) for at in range(0, len(body), 50_000))
    said = HEAD + headers + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Checksum: 1\r\n\r\n"
    stage = adversary.play([read(), send(b"HTTP/1.1 100 Continue\r\n\r\n", 50), send(said)])
    answer = main(auth | {"baseUrl": stage.url}, message)  # type: ignore[arg-type]
    assert answer == json.loads(body)

"""An answer has an end in size, as it comes and unpacked: no more of it is read, or held, whatever is sent."""

import zlib
from collections.abc import Iterator

import pytest

from f.kustomer.create_message import main
from f.kustomer.shared import wire
from f.kustomer.shared.errors import OddAnswer
from tests.conftest import Body
from tests.other_steps.test_upload_attachment import place
from tests.standin import worker
from tests.standin.adversary import Adversary, Step, answer, read, send, send_for_ever
from tests.standin.kustomer import Kustomer
from tests.standin.windmill import Workspace
from tests.wire.test_endless_answers import CHUNKED, GZIPPED, HEAD

# How much more memory than usual a job may take, whatever its answer.
MORE_KIB = 64 << 10
# Longer than any of this takes to be too much, and short enough to see that nothing is waited for.
READ = 10.0

MIB = 1 << 20
GZIP = zlib.compressobj(9, wbits=31)
GZIP_HEAD = GZIP.compress(b'{"data": {"id": "1", "x": "') + GZIP.flush(zlib.Z_FULL_FLUSH)
# A mebibyte in a kilobyte, which stands on its own and so can be repeated.
GZIP_BLOCK = GZIP.compress(b" " * MIB) + GZIP.flush(zlib.Z_FULL_FLUSH)


def packed(data: bytes) -> bytes:
    """In gzip."""
    gzip = zlib.compressobj(9, wbits=31)
    return gzip.compress(data) + gzip.flush()


DEFLATED = zlib.compressobj(9)
DEFLATE_HEAD = DEFLATED.compress(b"{") + DEFLATED.flush(zlib.Z_FULL_FLUSH)
DEFLATE_BLOCK = DEFLATED.compress(b" " * MIB) + DEFLATED.flush(zlib.Z_FULL_FLUSH)
TWICE = packed(GZIP_HEAD + GZIP_BLOCK * 2_000)


BEGUN = b'{"data": {"id": "1", "x": "'
BIG = b" " * MIB
HUGE: dict[str, list[Step]] = {
    "400 MB": [send(HEAD + b"Content-Length: %d\r\n\r\n" % (400 * MIB) + BEGUN), send(BIG, 400)],
    "400 MB of no length": [send(HEAD + b"\r\n" + BEGUN), send(BIG, 400)],
    "a body without an end": [send(HEAD + b"\r\n" + BEGUN), send_for_ever(b" ")],
    "chunks without an end": [send(CHUNKED), send_for_ever(b"400\r\n" + b" " * 1024 + b"\r\n")],
    "a chunk of 400 MB": [send(CHUNKED + b"19000000\r\n"), send(BIG, 400)],
    "small chunks without an end": [send(CHUNKED), send_for_ever(b"40\r\n" + b" " * 64 + b"\r\n")],
    "2 MB of gzip that are 2 GB": [send(GZIPPED + GZIP_HEAD + GZIP_BLOCK * 2_000)],
    "gzip without an end": [send(GZIPPED + GZIP_HEAD), send_for_ever(GZIP_BLOCK)],
    "deflate without an end": [send(GZIPPED.replace(b"gzip", b"deflate") + DEFLATE_HEAD), send_for_ever(DEFLATE_BLOCK)],
    "8 kB of gzip in gzip that are 2 GB": [send(GZIPPED.replace(b"gzip", b"gzip, gzip") + TWICE)],
    "the size of a chunk": [send(CHUNKED), send_for_ever(b"0")],
    "the extension of a chunk": [send(CHUNKED + b"1;"), send_for_ever(b"x")],
    "a trailer": [send(CHUNKED + b"1\r\n{\r\n0\r\nX-A: "), send_for_ever(b"x")],
    "a header": [send(HEAD + b"X-A: "), send_for_ever(b"x")],
    "a status line": [send(b"HTTP/1.1 201 "), send_for_ever(b"x")],
}


# Nobody reads a line of megabytes, and nobody needs to unpack twice: these may break off before they are too large.
EITHER = {name for name in HUGE if name.startswith(("the ", "a trailer", "a header", "a status", "8 kB"))}

# The steps, with what they end with, and by how much more memory than before. The system's own limit is for a step
# that knows none.
MEASURED = """\
import os
import re
import resource

import f.kustomer.shared.wire as wire
import wmill
from f.kustomer import create_message, upload_attachment

wire.READ_SECONDS = 10.0
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))


def kib(what):
    with open("/proc/self/status") as status:
        return int(re.search(what + r":\\s*(\\d+)", status.read())[1])


def main(auth, body, step, storage):
    os.environ["BASE_INTERNAL_URL"] = storage
    with open("/proc/self/clear_refs", "w") as references:
        references.write("5")  # the peak begins anew: man 5 proc_pid_clear_refs
    before = kib("VmRSS")
    try:
        globals()[step].main(auth, body)
        end = ("success", "")
    except Exception as error:
        end = (type(error).__name__, getattr(error, "outcome", ""))
    return [*end, kib("VmHWM") - before]
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, windmill: Workspace) -> Iterator[worker.Dedicated]:
    """A worker in a process of its own, which tells what a step ends with and the memory that it took."""
    script = tmp_path_factory.mktemp("scripts") / "measured.py"
    script.write_text(MEASURED, encoding="utf-8")
    env = {"SSL_CERT_DIR": "/"}  # nobody here speaks TLS, and the storage reads every certificate
    with worker.Dedicated(script, workspace=windmill, env=env, timeout=30) as running:
        yield running


def measure(measured: worker.Dedicated, step: str, auth: Body, body: Body, storage: str = "") -> tuple[str, str]:
    """Run a step with what is too much for it: the error's name and the outcome."""
    job = measured.call({"auth": auth, "body": body, "step": step, "storage": storage})
    assert job.ok, job.error
    error, outcome, kib = job.result
    assert kib < MORE_KIB, f"{error}, and {kib >> 10} MiB more"
    assert job.seconds < READ, "it was waited for"
    return error, outcome


@pytest.mark.timeout(40)
@pytest.mark.parametrize("name", HUGE)
def test_no_more_of_a_huge_answer_is_read_than_has_a_place(
    measured: worker.Dedicated, adversary: Adversary, auth: Body, message: Body, name: str
) -> None:
    """What became of the message is unknown, and the worker has its memory."""
    stage = adversary.play([read(), *HUGE[name]])
    error, outcome = measure(measured, "create_message", auth | {"baseUrl": stage.url}, message)
    assert outcome == "unknown"
    assert error in (("NoAnswer", "OddAnswer") if name in EITHER else ("OddAnswer",))
    assert len(stage.requests) == 1


@pytest.mark.timeout(40)
def test_a_huge_answer_to_a_look_up_sends_nothing(
    measured: worker.Dedicated, adversary: Adversary, auth: Body, message: Body
) -> None:
    """It is not asked for again either."""
    stage = adversary.play([read(), *HUGE["a body without an end"]])
    body = message | {"externalId": "order-1042"}
    assert measure(measured, "create_message", auth | {"baseUrl": stage.url}, body) == ("OddAnswer", "not_sent")
    assert [each.data.split()[0] for each in stage.requests] == [b"GET"]


@pytest.mark.timeout(40)
def test_a_huge_refusal_is_a_refusal(
    measured: worker.Dedicated, adversary: Adversary, auth: Body, message: Body
) -> None:
    """Its status was read."""
    stage = adversary.play([read(), send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), send_for_ever(b" ")])
    assert measure(measured, "create_message", auth | {"baseUrl": stage.url}, message) == ("Rejected", "rejected")


@pytest.mark.timeout(40)
def test_a_huge_answer_of_an_upload_s_host_is_odd(
    measured: worker.Dedicated, adversary: Adversary, kustomer: Kustomer, auth: Body
) -> None:
    """It is read like Kustomer's."""
    kustomer.fault(place(adversary.play([read(), *HUGE["a body without an end"]]).url))
    body = {"content": "AAAA", "name": "a.txt"}
    assert measure(measured, "upload_attachment", auth, body) == ("OddAnswer", "unknown")


@pytest.mark.timeout(40)
def test_a_huge_error_of_the_storage_is_not_read(measured: worker.Dedicated, adversary: Adversary, auth: Body) -> None:
    """Nor told."""
    stage = adversary.play([read(), send(b"HTTP/1.1 500 Internal Server Error\r\n\r\n"), send_for_ever(b"x")])
    body = {"file": {"s3": "inbox/invoice.pdf"}}
    assert measure(measured, "upload_attachment", auth, body, stage.url) == ("FileNotRead", "not_sent")
    assert len(stage.requests) == 1


def test_an_answer_may_be_as_large_as_is_said(adversary: Adversary, auth: Body, message: Body) -> None:
    """And no larger: 10 MB, as it is once unpacked."""
    assert wire.MAX_ANSWER_BYTES == 10_000_000
    begun, end = b'{"data": {"id": "1", "x": "', b'"}}'
    for more in (0, 1):
        body = begun + b" " * (wire.MAX_ANSWER_BYTES - len(begun + end) + more) + end
        for said in (answer("201 Created", body), answer("201 Created", packed(body), "Content-Encoding: gzip")):
            given = auth | {"baseUrl": adversary.play([read(), send(said)]).url}
            if more:
                with pytest.raises(OddAnswer):
                    main(given, message)  # type: ignore[arg-type]
            else:
                assert main(given, message)["data"]["id"] == "1"  # type: ignore[arg-type]

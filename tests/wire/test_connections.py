"""Connections are kept while they are fresh, keys never, and each job gets its own answer or an error."""

import base64
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from f.kustomer.create_message import main
from f.kustomer.shared import wire
from f.kustomer.shared.errors import NoAnswer, Rejected
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body
from tests.conftest import Step as Run
from tests.other_steps.test_upload_attachment import place
from tests.standin import worker
from tests.standin.adversary import Adversary, Stage, Step, answer, created, hold, made, read, send, wait
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

FIRST, STRAY, SECOND = (f"65a1b2c3d4e5f60718293a4{digit}" for digit in "abc")

# The step as it is, but with less patience, so that a test can wait for its end.
IMPATIENT = """\
import f.kustomer.shared.wire as wire
from f.kustomer.create_message import main as step

wire.READ_SECONDS = 0.3


def main(auth, body):
    return step(auth, body)
"""


@pytest.fixture(scope="module")
def dedicated(tmp_path_factory: pytest.TempPathFactory, windmill: Workspace) -> Iterator[worker.Dedicated]:
    """A dedicated worker, whose process keeps the step's module, and its connections, from one job to the next."""
    script = tmp_path_factory.mktemp("scripts") / "impatient.py"
    script.write_text(IMPATIENT, encoding="utf-8")
    with worker.Dedicated(script, workspace=windmill) as running:
        yield running


# From one job to the next


def connections(kustomer: Kustomer) -> int:
    """How many connections the requests so far came in on."""
    return len({each.connection for each in kustomer.requests})


def test_calls_in_a_row_share_a_connection(kustomer: Kustomer, run: Run, message: Body) -> None:
    """A dedicated worker pays for TCP and TLS once."""
    for number in range(5):
        run({**message, "externalId": f"acme-{number}"})
    assert len(kustomer.requests) == 10
    assert connections(kustomer) == 1


def test_connection_that_has_been_idle_is_not_used_again(
    kustomer: Kustomer, run: Run, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may be closing it at that moment, and then nobody knows what became of the message."""
    run(message)
    monkeypatch.setattr(wire, "IDLE_SECONDS", 0.0)
    run(message)
    assert connections(kustomer) == 2


@pytest.mark.parametrize("fault", [Fault.cut(), Fault.close(), Fault.reset(), Fault.answer(500, b"<html>")])
def test_connection_is_not_confused_by_a_broken_answer(
    kustomer: Kustomer, run: Run, message: Body, fault: Fault
) -> None:
    """What was left unread of one answer is never taken for the next one."""
    kustomer.fault(fault)
    assert run(message).failed
    assert run(message).stored == 1


def test_dedicated_worker_uses_each_job_s_own_key(
    kustomer: Kustomer, dedicated: worker.Dedicated, auth: Body, message: Body
) -> None:
    """No key sticks to the connection, the module or a failure."""
    order = ["full", "no_read", "expired", "admin", "no_create", "full"]
    jobs = [dedicated.call({"auth": {**auth, "apiKey": kustomer.keys[name]}, "body": message}) for name in order]
    assert [each.headers["Authorization"] for each in kustomer.posts] == [f"Bearer {kustomer.keys[n]}" for n in order]
    assert [job.ok for job in jobs] == [True, True, False, True, False, True]
    assert connections(kustomer) == 1


def test_dedicated_worker_tells_the_essentials_without_extra(
    kustomer: Kustomer, dedicated: worker.Dedicated, auth: Body, message: Body
) -> None:
    """There an error has no attributes: its name and text still tell the cause, the status and the outcome."""
    kustomer.fault(Fault.answer(500))
    error = dedicated.call({"auth": auth, "body": message}).error
    assert error is not None
    assert "extra" not in error
    assert error["name"] == "ServerFailed"
    assert error["message"].startswith("500 Internal Server Error. It is unknown whether the message was recorded")


# After which answers


class Kind(NamedTuple):
    """A kind of answer to a first job: what is sent, what the job ends with, and whether the connection is kept."""

    steps: list[Step]
    end: str
    kept: bool


def interim(status: str, *headers: str) -> bytes:
    """An informational answer, which another must follow."""
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode()


def head(*lines: str) -> bytes:
    """The beginning of an answer, with no more headers than these."""
    return "\r\n".join([*lines, "", ""]).encode()


CREATED = created(FIRST)
JSON = made(FIRST)
GZIP = zlib.compressobj(wbits=31)
PACKED = GZIP.compress(JSON) + GZIP.flush()
CHUNKED = head("HTTP/1.1 201 Created", "Transfer-Encoding: chunked") + b"%x\r\n%b\r\n0\r\n" % (len(JSON), JSON)
REFUSAL = b'{"errors": [{"code": "badparam", "title": "Wrong"}]}'
CONTINUE = {
    "100": interim("100 Continue"),
    "100 three times": interim("100 Continue") * 3,
    "100 that says how long it is": interim("100 Continue", "Content-Length: 5"),
}
# Python's http.client reads past a 100 and takes these for the answer, which leaves the real one on its way.
INFORMATIONAL = {
    "102": interim("102 Processing"),
    "103": interim("103 Early Hints", "Link: </style.css>; rel=preload"),
    "104": interim("104 Upload Resumption Supported", "Upload-Offset: 0"),
    "199 without a reason": interim("199"),
    "some of each": interim("100 Continue") + interim("103 Early Hints", "A: b") + interim("102 Processing") * 2,
    "two hundred": interim("102 Processing") * 200,
    "102 that says how long it is": interim("102 Processing", "Content-Length: 5"),
}
WHOLE = {
    "201": CREATED,
    "200": answer("200 OK", JSON),
    "201 in chunks": CHUNKED + b"\r\n",
    "201 in chunks with trailers": CHUNKED + b"X-Checksum: 1\r\n\r\n",
    "201 packed": answer("201 Created", PACKED, "Content-Encoding: gzip"),
}
REFUSED = {
    "400": ("Rejected", answer("400 Bad Request", REFUSAL)),
    "401": ("AccessDenied", answer("401 Unauthorized", REFUSAL)),
    "404": ("Rejected", answer("404 Not Found", REFUSAL)),
    "409": ("Conflict", answer("409 Conflict", REFUSAL)),
}
# Whatever ends an answer, nothing says that no other is on its way.
ODD = {
    "101": interim("101 Switching Protocols", "Upgrade: h2c"),
    "204": head("HTTP/1.1 204 No Content"),
    "205": answer("205 Reset Content"),
    "304": head("HTTP/1.1 304 Not Modified", 'ETag: "1"'),
    "302": answer("302 Found", b"", "Location: /v1/messages/1"),
    "200 with a page": answer("200 OK", b"<html>It works!</html>"),
    "200 without an id": answer("200 OK", b'{"data": {}}'),
    "201 without anything": answer("201 Created"),
}
# What comes with the end of an answer is dropped with it: nothing of it is there for the next one.
WITH_MORE = {
    "with a byte too many": CREATED + b"\n",
    "with half an answer behind it": CREATED + b"HTTP/1.1 20",
    "with another behind it": CREATED + created(STRAY),
    "in chunks, with another behind it": CHUNKED + b"\r\n" + created(STRAY),
    "packed, with more behind it": answer("201 Created", PACKED + b"more", "Content-Encoding: gzip") + b"\r\n",
}
# A success, but not one that leaves the connection as it was.
LAST = {
    "that says it is the last": answer("201 Created", JSON, "Connection: close"),
    "of HTTP/1.0": CREATED.replace(b"1.1", b"1.0", 1),
}
KINDS = {
    **{f"{name}, then 201": Kind([send(said + CREATED)], FIRST, True) for name, said in CONTINUE.items()},
    **{
        f"{name}, and 201 a moment later": Kind([send(said), wait(0.03), send(CREATED)], FIRST, True)
        for name, said in CONTINUE.items()
    },
    "half of 100, and the rest a moment later": Kind(
        [send(b"HTTP/1.1 100 Con"), wait(0.03), send(b"tinue\r\n\r\n" + CREATED)], FIRST, True
    ),
    **{f"{name}, then 201": Kind([send(said + CREATED)], "OddAnswer", False) for name, said in INFORMATIONAL.items()},
    **{
        f"{name}, and 201 a moment later": Kind([send(said), wait(0.03), send(CREATED)], "OddAnswer", False)
        for name, said in INFORMATIONAL.items()
    },
    **{name: Kind([send(said)], FIRST, True) for name, said in WHOLE.items()},
    **{name: Kind([send(said)], error, True) for name, (error, said) in REFUSED.items()},
    **{name: Kind([send(said)], "OddAnswer", False) for name, said in ODD.items()},
    **{f"201 {name}": Kind([send(said)], FIRST, True) for name, said in WITH_MORE.items()},
    **{f"201 {name}": Kind([send(said)], FIRST, False) for name, said in LAST.items()},
    "nothing": Kind([wait(0.35)], "NoAnswer", False),
    "100 and nothing else": Kind([send(interim("100 Continue")), wait(0.35)], "NoAnswer", False),
    "half of 201": Kind([send(CREATED[:-9]), wait(0.35)], "NoAnswer", False),
}


def job(dedicated: worker.Dedicated, stage: Stage, key: str, **more: str) -> tuple[str, bytes]:
    """Run a job with a key of its own: the id of the message, or the error's name; and the key."""
    apikey = f"a-key-of-the-{key}-job"
    body = {"channel": "email", "direction": "in", "app": "acme", "preview": key, **more}
    done = dedicated.call({"auth": {"apiKey": apikey, "baseUrl": stage.url}, "body": body})
    return (done.result["data"]["id"] if done.ok else (done.error or {})["name"]), apikey.encode()


def two_jobs(dedicated: worker.Dedicated, stage: Stage) -> tuple[str, str]:
    """What two jobs end with that send a message each, the second after all that is sent to the first one."""
    first, _ = job(dedicated, stage, "first")
    stage.settle()
    second, key = job(dedicated, stage, "second")
    assert key in stage.requests[-1].data
    assert len(stage.requests) == 2
    return first, second


@pytest.mark.parametrize("name", KINDS)
def test_a_connection_is_kept_after_a_whole_answer_only(
    dedicated: worker.Dedicated, adversary: Adversary, name: str
) -> None:
    """A 100 is read past; anything else before the answer is an odd one, after which nothing is kept."""
    kind = KINDS[name]
    then = [read(), send(created(SECOND)), hold()]
    stage = adversary.play([read(), *kind.steps, *then], then)
    assert two_jobs(dedicated, stage) == (kind.end, SECOND)
    assert len({each.connection for each in stage.requests}) == (1 if kind.kept else 2)


@pytest.mark.parametrize("name", KINDS)
def test_what_comes_after_an_answer_is_not_taken_for_the_next(
    dedicated: worker.Dedicated, adversary: Adversary, name: str
) -> None:
    """It lies on the connection before the next job begins."""
    kind = KINDS[name]
    then = [read(), send(created(SECOND)), hold()]
    stage = adversary.play([read(), *kind.steps, wait(0.03), send(created(STRAY)), *then], then)
    assert two_jobs(dedicated, stage) == (kind.end, SECOND)


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if not kind.kept])
def test_what_comes_after_the_next_request_is_not_taken_for_its_answer(
    dedicated: worker.Dedicated, adversary: Adversary, name: str
) -> None:
    """Nothing on the connection tells then that it is late."""
    kind = KINDS[name]
    then = [read(), send(created(SECOND)), hold()]
    stage = adversary.play([read(), *kind.steps, read(), send(created(STRAY)), *then], then)
    assert two_jobs(dedicated, stage) == (kind.end, SECOND)


def test_an_answer_to_the_end_of_the_connection_is_whole(dedicated: worker.Dedicated, adversary: Adversary) -> None:
    """No length is said, and there is no connection to keep."""
    stage = adversary.play([read(), send(head("HTTP/1.1 201 Created") + JSON)], [read(), send(created(SECOND)), hold()])
    assert two_jobs(dedicated, stage) == (FIRST, SECOND)


ABSENT = answer("404 Not Found", b'{"errors": [{"code": "notfound"}]}')


def test_a_look_up_and_its_message_share_a_connection(dedicated: worker.Dedicated, adversary: Adversary) -> None:
    """Also where the server says in between that it goes on."""
    early = interim("100 Continue")
    stage = adversary.play(
        [read(), send(early), wait(0.03), send(ABSENT), read(), send(early), wait(0.03), send(CREATED), hold()]
    )
    assert job(dedicated, stage, "first", externalId="order-1")[0] == FIRST
    assert [each.data.split()[0] for each in stage.requests] == [b"GET", b"POST"]
    assert {each.connection for each in stage.requests} == {0}


def test_a_message_whose_answer_was_informational_is_looked_for(
    dedicated: worker.Dedicated, adversary: Adversary
) -> None:
    """It may have been recorded, which a look-up on another connection shows."""
    stage = adversary.play(
        [read(), send(ABSENT), read(), send(interim("102 Processing")), wait(0.03), send(created(STRAY)), hold()],
        [read(), send(answer("200 OK", JSON)), hold()],
    )
    assert job(dedicated, stage, "first", externalId="order-1")[0] == FIRST
    assert [(each.connection, each.data.split()[0]) for each in stage.requests] == [
        (0, b"GET"),
        (0, b"POST"),
        (1, b"GET"),
    ]


@pytest.mark.parametrize("name", [*ODD, "404 with a page"])
def test_an_odd_answer_to_a_look_up_is_the_connection_s_last(
    dedicated: worker.Dedicated, adversary: Adversary, name: str
) -> None:
    """The first job sends nothing, and the next one gets its own."""
    said = ODD.get(name, answer("404 Not Found", b"<html>No such page</html>"))
    then = [read(), send(created(SECOND)), hold()]
    stage = adversary.play([read(), send(said), read(), send(created(STRAY)), *then], then)
    assert job(dedicated, stage, "first", externalId="order-1")[0] == "OddAnswer"
    assert job(dedicated, stage, "second")[0] == SECOND
    assert [each.data.split()[0] for each in stage.requests] == [b"GET", b"POST"]


def test_an_upload_s_connection_is_not_kept_after_a_204(adversary: Adversary, kustomer: Kustomer, auth: Body) -> None:
    """S3 answers like this; it says no length, so that nothing tells where a next answer begins."""
    then = [read(), send(head("HTTP/1.1 204 No Content"))]
    stage = adversary.play([*then, *then, hold()], [*then, hold()])
    for _ in range(2):
        kustomer.fault(place(stage.url))
        upload(auth, {"content": "AAAA", "name": "a.txt"})  # type: ignore[arg-type]
    assert [each.connection for each in stage.requests] == [0, 1]


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
def test_a_success_before_the_whole_file_has_left_is_none(
    kustomer: Kustomer, auth: Body, adversary: Adversary, status: str
) -> None:
    """It can't be the answer to a file of which the host has not read the rest."""
    stage = adversary.play([wait(0.05), send(head(f"HTTP/1.1 {status}"))])
    kustomer.fault(place(stage.url))
    with pytest.raises(NoAnswer) as caught:
        upload(auth, {"content": base64.b64encode(bytes(12_000_000)).decode()})  # type: ignore[arg-type]
    assert (caught.value.outcome, caught.value.retryable, caught.value.attempts) == ("unknown", True, 4)


@pytest.mark.parametrize("reason", ["EntityTooLarge", "ExpiredToken"])
def test_a_refusal_before_the_whole_file_has_left_keeps_its_words(
    kustomer: Kustomer, auth: Body, adversary: Adversary, reason: str
) -> None:
    """The host has closed the connection with the rest of the file unread."""
    words = f"<Error><Code>{reason}</Code><Message>The words of the host.</Message></Error>".encode()
    stage = adversary.play([wait(0.05), send(answer("400 Bad Request", words))])
    kustomer.fault(place(stage.url))
    with pytest.raises(Rejected) as caught:
        upload(auth, {"content": base64.b64encode(bytes(12_000_000)).decode()})  # type: ignore[arg-type]
    assert (caught.value.status, caught.value.outcome, caught.value.attempts) == (400, "rejected", 2)
    assert (caught.value.errors[0]["code"], caught.value.errors[0]["detail"]) == (reason, "The words of the host.")


@pytest.mark.parametrize("size", [1_200, 8_193, 9_999])
def test_what_a_tls_record_holds_of_a_further_answer_is_not_taken_for_the_next(
    adversary: Adversary, message: Body, pem: Path, size: int
) -> None:
    """It is dropped with the answer whose last bytes it came with."""
    long = answer("201 Created", JSON.ljust(size - len(CREATED) + len(JSON) - 2))
    assert len(long) == size
    then = [read(), send(created(SECOND)), hold()]
    scripts = [read(), send(long + created(STRAY)), *then], then
    stage = adversary.play(*scripts, tls=pem)
    auth: Any = {"apiKey": "a-key-of-no-importance", "baseUrl": f"https://localhost:{stage.port}"}
    assert [main(auth, message)["data"]["id"] for _ in range(2)] == [FIRST, SECOND]  # type: ignore[arg-type]

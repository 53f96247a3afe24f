"""A file gets into Kustomer whole and under its own name, or the error says truly what became of it."""

import base64
import contextlib
import dataclasses
import gc
import hashlib
import http.client
import io
import json
import pathlib
import re
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme

from f.kustomer import create_message, upload_attachment
from f.kustomer.shared import client, inputs, wire
from f.kustomer.shared.errors import (
    AccessDenied,
    CannotConnect,
    Conflict,
    FileNotRead,
    InvalidInput,
    KustomerError,
    NoAnswer,
    NotTrusted,
    OddAnswer,
    RateLimited,
    Rejected,
    ServerFailed,
)
from f.kustomer.shared.wire import CHUNK_BYTES
from f.kustomer.upload_attachment import content_type, main
from tests.conftest import Body, spilled, within
from tests.standin import worker
from tests.standin.adversary import Adversary, answer, read, send
from tests.standin.kustomer import UPLOAD_PATH, Fault, Kustomer, StoredFile
from tests.standin.windmill import Workspace
from tests.standin.windmill_storage import StorageFault, sha256_of

STEP = "f/kustomer/upload_attachment"
RECORDS = "/v1/attachments"
# In base64 it has both of the characters that are others in addresses, and needs padding.
CONTENT = b"%PDF-1.7\r\n--\xff\xfe\xfb\xbf>>?\r\n\0"
ENCODED = base64.b64encode(CONTENT).decode()
PDF = {"content": ENCODED, "name": "invoice.pdf"}
LINK = {"externalUrl": "https://files.acme.example/invoice.pdf"}
FILE = {"file": {"s3": "inbox/invoice.pdf"}}
# What a form may submit for what nobody touched.
UNTOUCHED: Body = {
    "file": {"s3": "", "storage": None, "filename": ""},
    "content": "",
    "externalUrl": None,
    "name": "",
    "contentType": "",
    "contentLength": None,
}

WORDS = {
    ("record", "not_sent"): "This run created no attachment.",
    ("record", "rejected"): "This run has not created the attachment.",
    ("record", "unknown"): "It is unknown whether the attachment was created: it may be in Kustomer.",
    ("file", "not_sent"): "This run did not send the file.",
    ("file", "rejected"): "This run has not uploaded the file.",
    ("file", "unknown"): "It is unknown whether the file was uploaded: it may be there.",
    ("input", "not_sent"): "This run sent nothing. To correct: ",
    ("storage", "not_sent"): "Nothing of it was sent to Kustomer.",
}


@dataclasses.dataclass(frozen=True)
class Upload:
    """What one run came to: its result or its error, what it made, and what it asked Kustomer and the upload's host."""

    result: Body | None
    error: KustomerError | None
    records: list[Body]
    files: dict[str, StoredFile]
    requests: list[Body]
    uploads: int

    @property
    def made(self) -> Body:
        """The result; the test fails where there is an error."""
        assert self.result is not None, f"the step failed: {self.error!r}"
        return self.result

    @property
    def file(self) -> StoredFile:
        """The file that was kept for the result."""
        return self.files[self.made["_id"]]

    @property
    def failed(self) -> KustomerError:
        """The error; the test fails where there is none."""
        assert self.error is not None, f"the step succeeded: {self.result}"
        return self.error

    @property
    def about(self) -> str:
        """What the error's text is about, held against its outcome and what is true."""
        error, text = self.failed, str(self.error)
        ((about, outcome),) = [each for each, words in WORDS.items() if words in text]
        assert outcome == error.outcome
        if outcome != "unknown":
            assert not (self.records if about == "record" else self.files)
        if about in ("input", "storage"):
            assert (self.requests, self.uploads) == ([], 0)
        return about


Step = Callable[..., Upload]


@pytest.fixture
def storage(storage: Workspace) -> Workspace:
    """It holds a file."""
    storage.store("inbox/invoice.pdf", CONTENT)
    return storage


@pytest.fixture
def run(kustomer: Kustomer, auth: Body) -> Step:
    """Runs the step and holds what it says against what the stand-in has seen and stored."""

    def audited(body: object, **other: object) -> Upload:
        records, asked, sent = len(kustomer.attachments), len(kustomer.requests), len(kustomer.upload_requests)
        kept = set(kustomer.files)
        result, error = None, None
        try:
            result = main({**auth, **other}, body)  # type: ignore[arg-type, typeddict-item]
        except KustomerError as raised:
            error = raised
        found = Upload(
            result,
            error,
            kustomer.attachments[records:],
            {each: kustomer.files[each] for each in kustomer.files.keys() - kept},
            [json.loads(seen.body or b"{}") for seen in kustomer.requests[asked:]],
            len(kustomer.upload_requests) - sent,
        )
        if result:
            attributes = found.records[-1]["attributes"]
            assert result == {
                "_id": found.records[-1]["id"],
                **{name: attributes[name] for name in ("name", "contentType", "contentLength")},
            }
            assert attributes["uploaded"] is True
        if error:
            assert found.about
            assert str(error).startswith(f"{error.status}" if error.status else ("No", "This", "The", "Kustomer's"))
            assert json.loads(json.dumps(vars(error), allow_nan=False)) == vars(error)
            assert spilled(error, auth["apiKey"], Workspace.token) == []
            if not isinstance(error, CannotConnect):
                assert error.attempts == len(found.requests) + found.uploads
        return found

    return audited


def place(url: str, **fields: Any) -> Fault:
    """An answer that sends the file to this address, with a form of these fields."""
    upload = {"url": url, "fields": fields or {"key": "1"}}
    return Fault.answer(201, {"data": {"id": "65a1b2c3d4e5f60718293a4b"}, "meta": {"upload": upload}}, at=RECORDS)


# The file


@pytest.mark.parametrize("source", ["storage", "base64"])
@pytest.mark.parametrize(
    "size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17], ids="{} bytes".format
)
def test_a_file_arrives_to_the_byte(storage: Workspace, run: Step, size: int, source: str) -> None:
    """Of any size beside that of a chunk."""
    content = (bytes(range(256)) * (size // 256 + 1))[:size]
    storage.store("dump", content)
    encoded = f"data:application/octet-stream;base64,{base64.b64encode(content).decode()}"
    found = run({"file": {"s3": "dump"}} if source == "storage" else {"content": encoded, "name": "dump"})
    assert (found.file.size, found.file.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert (found.made["name"], found.made["contentLength"]) == ("dump", size)
    assert len(found.records) == len(found.files) == 1


def test_an_empty_file_of_the_storage_arrives(storage: Workspace, run: Step) -> None:
    """It is there, so that it is one; base64 of nothing is a mistake."""
    storage.store("empty.txt", b"")
    assert run({"file": "s3:///empty.txt"}).file.size == 0


@pytest.mark.parametrize("address", ["s3://archive/inbox/a b.pdf", " s3://archive/inbox/a b.pdf\n"])
def test_a_file_may_be_named_by_its_address(storage: Workspace, run: Step, address: str) -> None:
    """As Windmill writes it, with the name of its storage or without one."""
    storage.store("inbox/a b.pdf", CONTENT, storage="archive")
    assert run({"file": address}).made["name"] == "a b.pdf"
    assert run({"file": "s3:///inbox/invoice.pdf"}).made["name"] == "invoice.pdf"
    assert [each.query for each in storage.requests] == [
        {"file_key": "inbox/a b.pdf", "storage": "archive"},
        {"file_key": "inbox/invoice.pdf"},
    ]


def test_a_file_comes_from_the_storage_that_is_named(storage: Workspace, run: Step) -> None:
    """By its key, whatever is in it, and under its file name."""
    key = "in box/1042 & co/ü?#%.pdf"
    storage.store(key, CONTENT, storage="archive")
    found = run({"file": {"s3": key, "storage": "archive", "filename": "invoice.pdf"}})
    assert (found.file.sha256, found.made["name"]) == (hashlib.sha256(CONTENT).hexdigest(), "invoice.pdf")
    assert [each.query for each in storage.requests] == [{"file_key": key, "storage": "archive"}]


@pytest.mark.parametrize(
    "spelled",
    [
        ENCODED,
        ENCODED.rstrip("="),
        base64.urlsafe_b64encode(CONTENT).decode(),
        base64.urlsafe_b64encode(CONTENT).decode().rstrip("="),
        base64.encodebytes(CONTENT * 9).decode(),
        "\r\n".join(re.findall(".{1,7}", ENCODED)),
        f"  {ENCODED}\n",
        f"data:application/pdf;base64,{ENCODED}",
        f"data:;base64,{ENCODED}",
        f"DATA:text/plain;charset=utf-8;BASE64,{ENCODED}",
        f"\ndata:application/pdf;base64,\n{ENCODED}\n",
    ],
)
def test_base64_is_read_in_every_common_spelling(run: Step, spelled: str) -> None:
    """With line breaks, without padding, of the kind for addresses, and as a data: address."""
    content = CONTENT * 9 if len(spelled) > 200 else CONTENT
    found = run({"content": spelled, "name": "invoice.pdf"})
    assert found.file.head == content
    assert found.made["contentLength"] == len(content)


def test_base64_needs_no_storage(run: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor the time that importing its client takes."""
    monkeypatch.setitem(sys.modules, "wmill", None)
    assert run(PDF).file.head == CONTENT
    assert "wmill" not in vars(upload_attachment)


@pytest.mark.parametrize("given", [{}, {"contentLength": 48213}, {"name": "b.docx", "contentType": "text/plain"}])
def test_a_link_takes_one_request(run: Step, given: Body) -> None:
    """Nothing is uploaded, and Kustomer gets the address as it is."""
    address = "https://files.acme.example:8443/a%20b.pdf?sig=x%2By&e=1#page=2"
    found = run({"externalUrl": address, **given})
    about = {"name": "a b.pdf", "contentType": "application/pdf", "contentLength": 0, **given}
    assert found.requests == [{**about, "externalUrl": address}]
    assert found.made == {"_id": found.records[0]["id"], **about}
    assert (found.uploads, found.files) == (0, {})
    assert found.records[0]["links"]["related"] == address


def test_a_message_takes_what_comes_back(
    kustomer: Kustomer, storage: Workspace, run: Step, auth: Body, message: Body
) -> None:
    """Each result is an item of its attachments."""
    attachments = [run(body).made for body in (FILE, PDF, LINK)]
    create_message.main(auth, {**message, "attachments": attachments})  # type: ignore[arg-type]
    assert kustomer.messages[0]["attributes"]["attachments"] == attachments


# The two calls


@pytest.mark.parametrize("body", [FILE, PDF])
def test_the_record_comes_first_then_the_form_with_the_file_last(
    kustomer: Kustomer, storage: Workspace, run: Step, body: Body
) -> None:
    """As documented: exactly name, type and length; then every field that Kustomer gave, in its order."""
    found = run(body)
    about = {"name": "invoice.pdf", "contentType": "application/pdf", "contentLength": len(CONTENT)}
    assert found.requests == [about]
    assert found.made == {"_id": found.records[0]["id"], **about}
    fields = "key acl Content-Type X-Amz-Meta-Attachment-Id bucket X-Amz-Algorithm X-Amz-Credential X-Amz-Date Policy"
    assert found.file.fields == [*fields.split(), "X-Amz-Signature", "file"]
    assert (found.file.filename, found.file.content_type, found.uploads) == ("invoice.pdf", "application/pdf", 1)
    (upload,) = kustomer.upload_requests
    assert upload.headers["Content-Type"].startswith("multipart/form-data; boundary=")
    assert int(upload.headers["Content-Length"]) > len(CONTENT)
    assert not {"Transfer-Encoding", "Authorization", "Cookie"} & {name.title() for name in upload.headers}


@contextlib.contextmanager
def taking() -> Iterator[tuple[str, list[bytes]]]:
    """A host that answers one upload with 204: its address, and every byte that came."""
    came: list[bytes] = []

    def take() -> None:
        opened, _ = listener.accept()
        with opened, opened.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n"))
            length = http.client.parse_headers(io.BytesIO(head.partition(b"\r\n")[2]))["Content-Length"]
            came.extend((head, stream.read(int(length))))
            opened.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/bucket?x=1", came
        thread.join(5)


def test_the_form_is_all_that_the_host_gets(kustomer: Kustomer, run: Step, auth: Body) -> None:
    """The key is in no byte of it, and neither is anything else that Kustomer didn't give."""
    fields = {"key": 'a "b"/ü.pdf', "x-new": "line 1\r\nline 2", "empty": "", "Policy": "p" * 9000}
    with taking() as (url, came):
        kustomer.fault(place(url, **fields))
        main(auth, PDF)  # type: ignore[arg-type]
    head, form = came
    assert head.startswith(b"POST /bucket?x=1 HTTP/1.1\r\n")
    names = {line.partition(b":")[0].lower() for line in head.splitlines()[1:]}
    assert names <= {b"host", b"content-type", b"content-length", b"accept-encoding", b"user-agent"}
    assert auth["apiKey"].encode() not in head + form
    boundary = re.findall(rb"boundary=(\w+)", head)[0]
    *parts, end = form.split(b"--" + boundary)
    texts = [f'name="{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    assert [part.partition(b"form-data; ")[2] for part in parts[1:-1]] == texts
    assert parts[-1].endswith(
        b'name="file"; filename="invoice.pdf"\r\nContent-Type: application/pdf\r\n\r\n%b\r\n' % CONTENT
    )
    assert (parts[0], end) == (b"", b"--\r\n")


# Names and media types

OFFICE = "application/vnd.openxmlformats-officedocument."
OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("given", "name", "kind"),
    [
        ({"file": {"s3": "inbox/2026/invoice.pdf"}}, "invoice.pdf", "application/pdf"),
        ({"file": {"s3": "5f0c", "filename": "Résumé.DOCX"}}, "Résumé.DOCX", f"{OFFICE}wordprocessingml.document"),
        ({"file": {"s3": "5f0c", "filename": "/home/ada/a.csv"}}, "a.csv", "text/csv"),
        ({"file": {"s3": "5f0c", "filename": "a\r\nb\ud83d.csv"}}, "a  b .csv", "text/csv"),
        ({"file": {"s3": "a.csv"}, "name": "b.xlsx"}, "b.xlsx", f"{OFFICE}spreadsheetml.sheet"),
        ({"file": {"s3": "a.csv"}, "contentType": "text/plain; charset=utf-8"}, "a.csv", "text/plain; charset=utf-8"),
        ({"file": {"s3": "a.csv"}, "name": "b"}, "b", "application/pdf"),
        ({"file": {"s3": "inbox/a.csv"}, "name": " "}, "a.csv", "text/csv"),
        ({"file": {"s3": "a.csv"}, "name": "Order_225/2385.pdf"}, "Order_225/2385.pdf", "application/pdf"),
        ({"file": {"s3": "scans/5f0c"}}, "5f0c", "application/pdf"),
        ({"file": {"s3": "scans/"}}, "attachment.pdf", "application/pdf"),
        ({"content": ENCODED}, "attachment.pdf", "application/pdf"),
        ({"content": base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()}, "attachment.png", "image/png"),
        ({"content": base64.b64encode(b"\xff\xd8\xff\xe0").decode()}, "attachment.jpg", "image/jpeg"),
        ({"content": base64.b64encode(b"GIF89a").decode()}, "attachment.gif", "image/gif"),
        ({"content": base64.b64encode(b"PK\x03\x04\0").decode()}, "attachment.zip", "application/zip"),
        ({"content": base64.b64encode(b"Hello").decode()}, "attachment.bin", OCTETS),
        ({"content": ENCODED, "contentType": "text/csv"}, "attachment.csv", "text/csv"),
        ({"content": ENCODED, "name": "scan"}, "scan", "application/pdf"),
        ({"content": ENCODED, "name": "a.txt"}, "a.txt", "text/plain"),
        ({"externalUrl": "https://acme.example/a/photo.JPG?w=9&n=b.png#c.gif"}, "photo.JPG", "image/jpeg"),
        ({"externalUrl": "https://acme.example/%C3%BC%20%26%20b.xlsx"}, "ü & b.xlsx", f"{OFFICE}spreadsheetml.sheet"),
        ({"externalUrl": "https://acme.example/a%2Fb.tar.gz"}, "b.tar.gz", "application/gzip"),
        ({"externalUrl": "https://acme.example/download?id=5", "name": "a.pdf"}, "a.pdf", "application/pdf"),
        ({"externalUrl": "https://acme.example/download?id=5.pdf"}, "download", OCTETS),
        ({"externalUrl": "https://acme.example/a%0D%0Ab%00.csv"}, "a  b .csv", "text/csv"),
        ({"externalUrl": "https://acme.pl"}, "acme.pl", OCTETS),
        ({"externalUrl": "HTTPS://Files.Acme.ai/inbox/"}, "files.acme.ai", OCTETS),
    ],
)
def test_name_and_type_are_told_where_they_are_not_given(
    storage: Workspace, run: Step, given: Body, name: str, kind: str
) -> None:
    """From the file name, the last part of the key or the link, and the first bytes; a host's domain is no type."""
    storage.store(given.get("file", {}).get("s3", ""), CONTENT)
    found = run(given)
    assert (found.made["name"], found.made["contentType"]) == (name, kind)
    if found.files:
        assert (found.file.filename, found.file.content_type) == (name, kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.pptx", f"{OFFICE}presentationml.presentation"),
        ("a.doc", "application/msword"),
        ("a.xls", "application/vnd.ms-excel"),
        ("a.tar.gz", "application/gzip"),
        ("a.tgz", "application/gzip"),
        ("a.JPEG", "image/jpeg"),
        ("a.webp", "image/webp"),
        ("a.heic", "image/heic"),
        ("a.m4a", "audio/mp4"),
        ("a.ogg", "audio/ogg"),
        ("a.amr", "audio/amr"),
        ("a.mp4", "video/mp4"),
        ("a.eml", "message/rfc822"),
        ("a.ics", "text/calendar"),
        ("a.md", "text/markdown"),
        ("a.html", "text/html"),
        ("a.nonsense", OCTETS),
        ("pdf", OCTETS),
        (".pdf", OCTETS),
        ("a.", OCTETS),
        ("", OCTETS),
    ],
)
def test_a_type_is_told_from_the_extension(name: str, kind: str) -> None:
    """Whatever its case, and by the bytes where there is none."""
    assert content_type(name) == kind
    assert content_type(name, b"GIF89a") == (kind if kind != OCTETS else "image/gif")


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ('5" screen, "new".pdf', "5%22 screen, %22new%22.pdf"),
        ("ü ñ 発票 \U0001f468\u200d\U0001f469\u200d\U0001f467.pdf", None),
        ("a;b=c&d%22 %0D%0A.pdf", None),
        ("--" * 40, None),
        ("n" * 255, None),
        ("a/b/c.pdf", None),
    ],
)
def test_an_odd_name_arrives_unharmed(run: Step, name: str, sent: str | None) -> None:
    """The record has it as it is; the form too, but for what browsers escape."""
    found = run({**PDF, "name": name})
    assert (found.made["name"], found.file.filename) == (name, sent or name)


@pytest.mark.parametrize(
    "name",
    [
        "a\r\nContent-Type: text/html\r\n\r\n.pdf",
        'a"\r\nX-Evil: 1\r\n\r\n',
        "a\nb",
        "a\rb",
        "a\0b",
        "a\x1b[31m\x7f",
        "a\ud83db.pdf",
    ],
)
def test_a_name_with_control_characters_is_one_line(run: Step, name: str) -> None:
    """It neither adds a header to the form nor breaks it, and Windmill can store it: blanks take their places."""
    found = run({**PDF, "name": name})
    assert found.made["name"] == "".join(each if " " <= each < "\x7f" else " " for each in name)
    assert found.file.fields[-2:] == ["X-Amz-Signature", "file"]
    assert found.file.head == CONTENT


@pytest.mark.parametrize(
    "kind",
    [
        "pdf",
        "application/",
        "/pdf",
        "a b/c",
        "text/plain\n",
        "text/plain; a\rX: 1",
        "text/plain; \0",
        "tëxt/plain",
        "text/plain; é",
        "text/plain; \ud83d",
        "text/html\r\nX-Evil: 1",
        "a/b/c",
    ],
)
def test_a_type_that_is_none_is_refused(run: Step, kind: str) -> None:
    """It would stand in a header of the form."""
    assert [each["path"] for each in run({**PDF, "contentType": kind}).failed.errors] == ["body.contentType"]


@pytest.mark.parametrize("kind", ["application/pdf", "image/svg+xml", "text/plain;charset=utf-8", 'a/b; c="d e"'])
def test_a_given_type_is_taken_as_it_is(run: Step, kind: str) -> None:
    """With its parameters."""
    found = run({**PDF, "contentType": kind})
    assert (found.made["contentType"], found.file.content_type) == (kind, kind)


# Wrong input

ONE = "must have one of file, content and externalUrl, not "


@pytest.mark.parametrize(
    ("body", "path", "words"),
    [
        (None, "body", "is missing"),
        ("$res:f/kustomer/file", "body", "did not resolve"),
        ([FILE], "body", "must be an object, not a list"),
        ({}, "body", f"{ONE}none"),
        (UNTOUCHED, "body", f"{ONE}none"),
        ({"name": "a.pdf"}, "body", f"{ONE}none"),
        ({**FILE, **PDF}, "body", f"{ONE}file and content"),
        ({**FILE, **LINK}, "body", f"{ONE}file and externalUrl"),
        ({**PDF, **LINK}, "body", f"{ONE}content and externalUrl"),
        ({**FILE, **PDF, **LINK}, "body", f"{ONE}file and content and externalUrl"),
        ({"file": "inbox/invoice.pdf"}, "body.file", "must be an object, not text"),
        ({"file": "s3://inbox"}, "body.file", "must be an object, not text"),
        (
            {"externalUrl": "s3:///inbox/invoice.pdf"},
            "body.externalUrl",
            "give what is in Windmill's object storage as",
        ),
        ({"externalUrl": "https://a.example/x.pdf,https://a.example/y.pdf"}, "body.externalUrl", "must be one address"),
        ({"file": [FILE]}, "body.file", "must be an object, not a list"),
        ({"file": {"s3": 5}}, "body.file.s3", "must be text, not a number"),
        ({"file": {"filename": "invoice.pdf"}}, "body.file.s3", "is missing"),
        ({"file": {"s3": "a", "storage": 1}}, "body.file.storage", "must be text"),
        ({"content": 5}, "body.content", "must be text, not a number"),
        ({"content": {"s3": "a"}}, "body.content", "must be text, not an object"),
        ({"externalUrl": True}, "body.externalUrl", "must be text, not true or false"),
        ({**PDF, "name": 5}, "body.name", "must be text"),
        ({**PDF, "contentType": ["a/b"]}, "body.contentType", "must be text, not a list"),
        ({**LINK, "contentLength": "5"}, "body.contentLength", "must be a number, not text"),
        ({**LINK, "contentLength": True}, "body.contentLength", "must be a number"),
        ({**LINK, "contentLength": -1}, "body.contentLength", "must be from 0"),
        ({**LINK, "contentLength": 2.0**54}, "body.contentLength", "must be from 0"),
        ({**LINK, "contentLength": float("nan")}, "body.contentLength", "must be from 0"),
        ({**FILE, "contentLength": 5}, "body", "must not have a contentLength: it is counted"),
        ({**PDF, "contentLength": 0}, "body", "must not have a contentLength: it is counted"),
        ({**PDF, "s3": "a"}, "body.s3", "did you mean 'file'?"),
        ({**PDF, "url": "https://a.example/"}, "body.url", "did you mean 'externalUrl'?"),
        ({**PDF, "external_url": "https://a.example/"}, "body.external_url", "did you mean 'externalUrl'?"),
        ({**PDF, "fileName": "a"}, "body.fileName", "did you mean 'name'?"),
        ({**PDF, "mimeType": "a/b"}, "body.mimeType", "did you mean 'contentType'?"),
        ({**LINK, "size": 5}, "body.size", "did you mean 'contentLength'?"),
        ({**LINK, "renderMode": "default"}, "body.renderMode", "known are file, content, externalUrl, name"),
    ],
)
def test_a_wrong_body_is_told_and_nothing_is_sent(
    storage: Workspace, run: Step, body: object, path: str, words: str
) -> None:
    """With its path, and nothing is read from the storage either."""
    error = run(body).failed
    assert (type(error), error.outcome, error.retryable, error.attempts) == (InvalidInput, "not_sent", False, 0)
    assert words in {each["path"]: each["title"] or "" for each in error.errors}[path]
    assert f"{path} " in str(error)
    assert storage.requests == []


@pytest.mark.parametrize(
    "content",
    [
        "äö",
        "QQ=Q",
        "A",
        "QQ==QQ==",
        "QQ==,",
        "%PDF-1.7",
        "https://acme.example/a.pdf",
        "see base64,QQ==",
        "data:text/plain,QQ==",
        "data:text/plain;base64",
        "data:text/plain;base64,Q",
        "QQ==\ud83d",
        "Q\0Q=",
        "=",
        "====",
        "data:text/plain;base64,",
        "QQ QQ",
        "QU FB\nQUFB",
        "QUFB \nQUFB",
        "QUFB\tQUFB",
        "QUFBQ",
        "QUFBQ===",
    ],
)
def test_what_is_not_base64_is_refused(run: Step, content: str) -> None:
    """Before anything is sent, and without being quoted."""
    error = run({"content": content}).failed
    assert [(each["path"], each["title"]) for each in error.errors] == [
        ("body.content", "must be base64: the bytes of the file as text")
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://files.acme.example/a",
        "ftp://files.acme.example/a",
        "files.acme.example/a",
        "//files.acme.example/a",
        "https:",
        "https://",
        "https:///a",
        "https://:443/a",
        "https://[/a",
        "file:///etc/passwd",
        "javascript:1",
        "https://ada:secret@files.acme.example/a",
        "https://ada@files.acme.example/a",
        "https://@files.acme.example/a",
        "https://files.acme.example/my photo.jpg",
        "https://files.acme.example/a\n",
    ],
)
def test_a_link_that_kustomer_refuses_is_refused(run: Step, url: str) -> None:
    """Only https, and no blank, user name or password in it; none is quoted."""
    error = run({"externalUrl": url}).failed
    assert [each["path"] for each in error.errors] == ["body.externalUrl"]
    assert "https://, without blanks, user name or password" in str(error)
    assert spilled(error, "secret") == []


@pytest.mark.parametrize("body", [FILE, PDF, LINK])
def test_what_a_form_leaves_untouched_counts_as_not_given(storage: Workspace, run: Step, body: Body) -> None:
    """Empty texts and half empty objects beside the source that is given."""
    assert run({**UNTOUCHED, **body}).made["name"] == "invoice.pdf"


def test_everything_that_is_wrong_is_told_in_one_error(storage: Workspace, run: Step) -> None:
    """Of auth and of body."""
    body = {"file": {"s3": 5}, "content": "ä", "externalUrl": "http://a.example", "contentType": "x", "foo": 1}
    error = run(body, apiKey="", orgName="a.b").failed
    paths = ["auth.apiKey", "auth.orgName", "body", "body.content", "body.contentType", "body.externalUrl"]
    assert sorted(str(each["path"]) for each in error.errors) == [*paths, "body.file.s3", "body.foo"]
    assert storage.requests == []


# The storage

STORAGE_FAULTS: dict[str, tuple[Body, StorageFault | None, int | None, bool, str]] = {
    "absent": ({"s3": "none.pdf"}, None, 404, False, "Object at location none.pdf not found"),
    "no such storage": ({"s3": "a", "storage": "b"}, None, 500, True, "No files storage resource defined"),
    "denied": (FILE["file"], "denied", 403, False, "Permission denied: inbox/invoice.pdf"),
    "an error": (FILE["file"], "error", 500, True, "Error retrieving file"),
    "cut": (FILE["file"], "cut", None, True, "RemoteProtocolError"),
    "half a character": ({"s3": "a\ud83d"}, None, None, False, "UnicodeEncodeError"),
}


@pytest.mark.parametrize("name", STORAGE_FAULTS)
def test_a_file_that_cannot_be_read_is_not_sent(storage: Workspace, run: Step, name: str) -> None:
    """Kustomer hears nothing of it, and the error has the storage's own words."""
    file, fault, status, retryable, words = STORAGE_FAULTS[name]
    if fault:
        storage.storage_fault(fault)
    found = run({"file": file})
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (FileNotRead, status, "not_sent", retryable)
    assert (error.attempts, len(storage.requests)) == (0, 0 if words == "UnicodeEncodeError" else 1)
    assert words in str(error)
    assert ("Running the step again is safe." in str(error)) is retryable
    assert [each["path"] for each in error.errors] == ["body.file"]
    assert run(FILE).file.head == CONTENT


def test_a_disk_without_a_folder_for_files_is_told(
    storage: Workspace, run: Step, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """The file is there, and the worker has no place for it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    error = run(FILE).failed
    assert (type(error), error.outcome, error.retryable) == (FileNotRead, "not_sent", True)
    assert "(the worker's disk: No such file or directory)" in str(error)
    assert storage.requests == []


@pytest.mark.parametrize("size", [1, 2 * CHUNK_BYTES], ids=["in the last bytes", "on the way"])
def test_a_disk_that_is_full_is_told(storage: Workspace, run: Step, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Whenever that shows."""
    storage.store("dump", size)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: SIM115
    error = run({"file": {"s3": "dump"}}).failed
    assert (type(error), error.outcome, error.retryable) == (FileNotRead, "not_sent", True)
    assert "(the worker's disk: No space left on device)" in str(error)


def test_a_storage_s_words_are_made_fit_for_an_error(
    storage: Workspace, run: Step, monkeypatch: pytest.MonkeyPatch, adversary: Adversary
) -> None:
    """Windmill can't store a NUL."""
    stage = adversary.play([read(), send(answer("500 Internal Server Error", b"no\0file\x1b[31m"))])
    monkeypatch.setenv("BASE_INTERNAL_URL", stage.url)
    error = run(FILE).failed
    assert (type(error), error.errors[0]["detail"]) == (FileNotRead, "no file [31m")
    assert str(error).isprintable()


def test_a_storage_that_hangs_is_given_up(storage: Workspace, run: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would wait for ever."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.2)
    storage.storage_fault("hang")
    started = time.monotonic()
    error = run(FILE).failed
    assert 0.2 <= time.monotonic() - started < 1.2
    assert (type(error), error.retryable, "less than" in str(error)) == (FileNotRead, True, True)
    storage.release()
    assert run(FILE).file.head == CONTENT


def test_a_storage_that_does_not_connect_is_told(
    storage: Workspace, run: Step, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    """A server that is being restarted will be there again."""
    monkeypatch.setenv("BASE_INTERNAL_URL", f"http://127.0.0.1:{free_port}")
    error = run(FILE).failed
    assert (type(error), error.status, error.retryable) == (FileNotRead, None, True)
    assert "ConnectError" in str(error)


@pytest.mark.parametrize(("name", "value", "status"), [("WM_WORKSPACE", "", None), ("WM_TOKEN", "wrong", 401)])
def test_what_is_no_job_is_told(
    storage: Workspace, run: Step, monkeypatch: pytest.MonkeyPatch, name: str, value: str, status: int | None
) -> None:
    """Without a workspace or a token that is good there, trying again won't help."""
    monkeypatch.setenv(name, value)
    error = run(FILE).failed
    assert (type(error), error.status, error.retryable) == (FileNotRead, status, False)


@pytest.mark.parametrize("token", ["job-token\nof-acme", "job-token-of-acmé", "inbox"])
def test_the_token_is_not_shown(
    storage: Workspace, run: Step, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
) -> None:
    """Not where the libraries quote it, nor where the storage does."""
    with monkeypatch.context() as changed:
        changed.setenv("WM_TOKEN", token)
        changed.setattr(Workspace, "token", token)
        error = run({"file": {"s3": "inbox/none.pdf"}}).failed
    assert (type(error), spilled(error, token)) == (FileNotRead, [])
    assert token not in "".join(capsys.readouterr())
    assert run(FILE).file.head == CONTENT


def test_a_run_leaves_nothing_open(storage: Workspace, run: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection and no file: on a dedicated worker they would add up."""
    left: list[Any] = []
    gc.collect()
    monkeypatch.setattr(sys, "unraisablehook", left.append)
    run(FILE)
    for fault in ("cut", "error", "denied"):
        storage.storage_fault(fault)
        run(FILE)
    gc.collect()
    assert [str(each.exc_value) for each in left] == []


def test_a_run_leaves_nothing_in_memory(run: Step) -> None:
    """What is read once from the types serves every run."""
    run(LINK)
    before = inputs._node.cache_info().currsize
    run(LINK)
    assert inputs._node.cache_info().currsize == before


# A fault of the record, or of the form

Problem = type[KustomerError]
HOUR = {"Retry-After": "3600"}


def xml(code: str, message: str) -> bytes:
    """What S3 says of an error."""
    return f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


# What Kustomer or the upload's host may answer, and what comes of it: class, status, tries, outcome, retryable.
Came = tuple[Callable[[str, bool], Fault], Problem, int | None, int, str, bool]
ANYWHERE: dict[str, Came] = {
    "408": (lambda at, store: Fault.answer(408, at=at, store=store), ServerFailed, 408, 3, "unknown", True),
    "429 for an hour": (lambda at, _: Fault.answer(429, at=at, headers=HOUR), RateLimited, 429, 1, "rejected", True),
    "500": (lambda at, store: Fault.answer(500, {}, at=at, store=store), ServerFailed, 500, 3, "unknown", True),
    "502 page": (
        lambda at, store: Fault.answer(502, b"<h1>", at=at, store=store),
        ServerFailed,
        502,
        3,
        "unknown",
        True,
    ),
    "503 XML": (
        lambda at, store: Fault.answer(503, xml("SlowDown", "Reduce your rate"), at=at, store=store),
        *(ServerFailed, 503, 3, "unknown", True),
    ),
    "late": (lambda at, _: Fault.late_store(at=at), ServerFailed, 504, 3, "unknown", True),
    "reset": (lambda at, store: Fault.reset(at=at, store=store), NoAnswer, None, 3, "unknown", True),
    "reset unread": (lambda at, _: Fault.reset(before_reading=True, at=at), NoAnswer, None, 3, "unknown", True),
    "close": (lambda at, store: Fault.close(at=at, store=store), NoAnswer, None, 3, "unknown", True),
    "302": (
        lambda at, store: Fault.answer(302, at=at, headers={"Location": "/"}, store=store),
        *(OddAnswer, 302, 1, "unknown", False),
    ),
    "307": (
        lambda at, store: Fault.answer(307, xml("TemporaryRedirect", "Go"), {"Location": "/"}, at=at, store=store),
        *(OddAnswer, 307, 1, "unknown", False),
    ),
    "a web page": (
        lambda at, store: Fault.answer(200, b"<html>Log in</html>", at=at, store=store),
        *(OddAnswer, 200, 1, "unknown", True),
    ),
}
OF_RECORD: dict[str, Came] = ANYWHERE | {
    "400": (lambda at, _: Fault.answer(400, {"errors": [{"title": "No"}]}, at=at), Rejected, 400, 1, "rejected", False),
    "401": (lambda at, _: Fault.answer(401, {"errors": []}, at=at), AccessDenied, 401, 1, "rejected", False),
    "403": (lambda at, _: Fault.answer(403, b"<h1>No</h1>", at=at), AccessDenied, 403, 1, "rejected", False),
    "404": (lambda at, _: Fault.answer(404, at=at), Rejected, 404, 1, "rejected", False),
    "409": (lambda at, _: Fault.answer(409, {}, at=at), Conflict, 409, 1, "rejected", False),
    "413": (lambda at, _: Fault.answer(413, {}, at=at), Rejected, 413, 1, "rejected", False),
    "cut": (lambda at, store: Fault.cut(at=at, store=store), NoAnswer, 201, 3, "unknown", True),
    "cut in a chunk": (
        lambda at, store: Fault.cut(chunked=True, at=at, store=store),
        NoAnswer,
        201,
        3,
        "unknown",
        True,
    ),
    "no id": (
        lambda at, store: Fault.answer(201, {"data": {}, "meta": {}}, at=at, store=store),
        *(OddAnswer, 201, 1, "unknown", True),
    ),
}
OF_FILE: dict[str, Came] = ANYWHERE | {
    "400 XML": (
        lambda at, _: Fault.answer(400, xml("EntityTooLarge", "Your proposed upload is too large"), at=at),
        *(Rejected, 400, 1, "rejected", False),
    ),
    "400": (lambda at, _: Fault.answer(400, at=at), Rejected, 400, 1, "rejected", False),
    "401": (lambda at, _: Fault.answer(401, b"<h1>No</h1>", at=at), Rejected, 401, 1, "rejected", False),
    "403 XML": (
        lambda at, _: Fault.answer(403, xml("AccessDenied", "Access Denied"), at=at),
        *(Rejected, 403, 1, "rejected", False),
    ),
    "403 expired": (
        lambda at, _: Fault.answer(403, xml("AccessDenied", "Invalid according to Policy: Policy expired."), at=at),
        *(Rejected, 403, 1, "rejected", True),
    ),
    "403 JSON": (lambda at, _: Fault.answer(403, {"message": "No"}, at=at), Rejected, 403, 1, "rejected", False),
    "404": (lambda at, _: Fault.answer(404, xml("NoSuchBucket", "None"), at=at), Rejected, 404, 1, "rejected", False),
    "409": (lambda at, _: Fault.answer(409, xml("OperationAborted", "C"), at=at), Rejected, 409, 1, "rejected", False),
    "411": (lambda at, _: Fault.answer(411, b"\xff\xfe", at=at), Rejected, 411, 1, "rejected", False),
    "cut": (lambda at, store: Fault.cut(at=at, store=store), NoAnswer, None, 3, "unknown", True),
}


def cases(faults: dict[str, Came]) -> list[tuple[str, bool]]:
    """The names of faults, each with what it does not store, and what it may store all the same."""
    return [(name, store) for name, came in faults.items() for store in (False, True)[: 1 + (came[4] == "unknown")]]


@pytest.mark.parametrize(("name", "store"), cases(OF_RECORD))
@pytest.mark.parametrize("body", [PDF, LINK], ids=["file", "link"])
def test_a_record_that_is_not_made_is_told(
    kustomer: Kustomer, run: Step, waits: list[float], body: Body, name: str, store: bool
) -> None:
    """No file is sent without one; running the step again makes another, and disturbs nobody."""
    make, problem, status, tries, outcome, retryable = OF_RECORD[name]
    fault = make(RECORDS, store)
    kustomer.fault(*[fault] * tries)
    found = run(body)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, outcome, retryable)
    assert (found.about, error.attempts, found.uploads) == ("record", tries, 0)
    assert len(found.records) == tries * fault.store
    assert within(waits, *(2, 4)[: tries - 1])
    assert (error.retry_after == 3600) is (status == 429)
    assert "unning the step again" in str(error)
    assert run(body).made["name"] == "invoice.pdf"


@pytest.mark.parametrize(("name", "store"), cases(OF_FILE))
def test_a_file_that_is_not_uploaded_is_told(
    kustomer: Kustomer, run: Step, waits: list[float], name: str, store: bool
) -> None:
    """The record stays without a file; running the step again makes one with it."""
    make, problem, status, tries, outcome, retryable = OF_FILE[name]
    fault = make(UPLOAD_PATH, store)
    kustomer.fault(*[fault] * tries)
    found = run(PDF)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (problem, status, outcome, retryable)
    assert (found.about, error.attempts, len(found.records), found.uploads) == ("file", 1 + tries, 1, tries)
    assert len(found.files) == fault.store
    assert within(waits, *(2, 4)[: tries - 1])
    assert "the upload's host, 127.0.0.1" in str(error)
    assert "unning the step again" in str(error)
    assert "one without a file is shown nowhere" in str(error)
    assert "apiKey" not in str(error)
    again = run(PDF)
    assert (again.file.head, again.made["_id"]) == (CONTENT, kustomer.attachments[1]["id"])


def test_the_words_of_the_upload_s_host_are_told(kustomer: Kustomer, run: Step) -> None:
    """Its code and its text, and its name for the request."""
    headers = {"x-amz-request-id": "4442587FB7D0A2F9"}
    kustomer.fault(Fault.answer(403, xml("AccessDenied", "Not with this policy"), headers, at=UPLOAD_PATH))
    error = run(PDF).failed
    assert str(error).startswith("403 Forbidden from the upload's host, 127.0.0.1: Not with this policy.")
    assert (error.request_id, error.errors[0]["code"]) == ("4442587FB7D0A2F9", "AccessDenied")


def test_a_form_that_has_expired_is_made_anew_by_the_next_run(kustomer: Kustomer, run: Step) -> None:
    """The upload's host says so, and the file wasn't kept."""
    kustomer.policy_seconds = -1
    error = run(PDF).failed
    assert (type(error), error.status, error.outcome, error.retryable) == (Rejected, 403, "rejected", True)
    assert "Policy expired" in str(error)
    kustomer.policy_seconds = 60
    assert run(PDF).file.head == CONTENT


def test_a_key_without_the_role_is_told(kustomer: Kustomer, storage: Workspace, run: Step) -> None:
    """By its name."""
    error = run(FILE, apiKey=kustomer.keys["no_create"]).failed
    assert (type(error), error.outcome) == (AccessDenied, "rejected")
    assert "it needs the role org.permission.message.create" in str(error)


@pytest.mark.parametrize(
    "upload",
    [
        None,
        "https://bucket.example/",
        {"fields": {"key": "1"}},
        {"url": "https://bucket.example/"},
        *({"url": "https://bucket.example/", "fields": each} for each in (None, {}, ["key"], "key", {"key": 1})),
        *({"url": "https://bucket.example/", "fields": {"a": "b", "key": each}} for each in (None, ["1"], {"a": "b"})),
        *(
            {"url": url, "fields": {"key": "1"}}
            for url in (
                "http://bucket.example/",
                "ftp://127.0.0.1/",
                "file:///etc/passwd",
                "//127.0.0.1/",
                "/upload",
                "",
            )
        ),
        *({"url": url, "fields": {"key": "1"}} for url in ("https://", "https:///a", "https://[", 5, ["https://a/"])),
        {"url": "http://127.0.0.1.bucket.example/", "fields": {"key": "1"}},
        {"url": "http://127.0.0.1@bucket.example/", "fields": {"key": "1"}},
        {"url": "http://bucket.example\\@127.0.0.1/", "fields": {"key": "1"}},
    ],
    ids=repr,
)
def test_a_file_goes_nowhere_but_to_a_proper_place(kustomer: Kustomer, run: Step, upload: Any) -> None:
    """Over https or to this machine, with a form of texts; else the answer is not Kustomer's."""
    kustomer.fault(Fault.answer(201, {"data": {"id": "1"}, "meta": {"upload": upload}}, at=RECORDS, store=True))
    found = run(PDF)
    error = found.failed
    assert (type(error), error.status, error.outcome, error.retryable) == (OddAnswer, None, "not_sent", True)
    assert (found.about, error.attempts) == ("file", 1)
    assert "has no place to upload to" in str(error)
    assert "Running the step again is safe" in str(error)
    assert run(PDF).file.head == CONTENT


def test_an_upload_s_host_that_does_not_connect_is_told(
    kustomer: Kustomer, run: Step, waits: list[float], free_port: int
) -> None:
    """By its name, so that a firewall can be opened for it."""
    kustomer.fault(place(f"http://127.0.0.1:{free_port}/"))
    found = run(PDF)
    error = found.failed
    assert (type(error), error.outcome, error.retryable, error.attempts) == (CannotConnect, "not_sent", True, 4)
    assert (found.about, within(waits, 2, 4)) == ("file", True)
    assert "may connect to the upload's host, 127.0.0.1." in str(error)
    assert "baseUrl" not in str(error)


def test_an_upload_s_host_that_is_not_trusted_gets_nothing(kustomer: Kustomer, run: Step) -> None:
    """Its certificate is checked like Kustomer's own."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    with Kustomer(tls=context) as other:
        kustomer.fault(place(other.upload_url))
        found = run(PDF)
        assert other.upload_requests == []
    error = found.failed
    assert (type(error), error.outcome, error.retryable, error.attempts) == (NotTrusted, "not_sent", False, 2)
    assert "certificates the worker trusts" in str(error)


# Trying again inside the step


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("name", [name for name, (*_, tries, _, _) in OF_FILE.items() if tries == 3])
def test_a_passing_fault_is_survived_and_the_file_sent_whole_again(
    kustomer: Kustomer, storage: Workspace, run: Step, waits: list[float], name: str, failures: int
) -> None:
    """From its first byte, with the same form, and read from the storage only once."""
    size = 2 * CHUNK_BYTES + 1
    content = (CONTENT * (size // len(CONTENT) + 1))[:size]
    storage.store(FILE["file"]["s3"], content)
    kustomer.fault(*[OF_FILE[name][0](UPLOAD_PATH, False)] * failures)
    found = run({**PDF, "content": base64.b64encode(content).decode()} if failures == 1 else FILE)
    assert (found.file.size, found.file.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert (len(found.records), len(found.requests), found.uploads) == (1, 1, failures + 1)
    assert {seen.headers["Content-Length"] for seen in kustomer.upload_requests} == {
        kustomer.upload_requests[0].headers["Content-Length"]
    }
    assert within(waits, *(2, 4)[:failures])
    assert len(storage.requests) == failures - 1


@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("name", [name for name, (*_, tries, _, _) in OF_RECORD.items() if tries == 3])
def test_a_passing_fault_of_the_record_is_survived(
    kustomer: Kustomer, run: Step, waits: list[float], name: str, failures: int, store: bool
) -> None:
    """A record that was made all the same stays without a file, and the result is the one that has it."""
    kustomer.fault(*[OF_RECORD[name][0](RECORDS, store)] * failures)
    found = run(PDF)
    assert (found.file.head, list(found.files)) == (CONTENT, [found.made["_id"]])
    assert (len(found.requests), found.uploads) == (failures + 1, 1)
    assert [each["attributes"]["uploaded"] for each in found.records].count(True) == 1
    assert within(waits, *(2, 4)[:failures])


def test_a_limit_is_waited_for(kustomer: Kustomer, run: Step, waits: list[float]) -> None:
    """As it says, by either of the two."""
    kustomer.fault(
        Fault.answer(429, headers={"Retry-After": "7"}, at=RECORDS),
        Fault.answer(429, headers={"Retry-After": "9"}, at=UPLOAD_PATH),
    )
    assert run(PDF).file.head == CONTENT
    assert within(waits, 7, 9)


def test_each_call_has_three_tries_and_all_are_counted(kustomer: Kustomer, run: Step, waits: list[float]) -> None:
    """What the record took isn't taken from the file."""
    kustomer.fault(*[Fault.answer(503, at=RECORDS)] * 2, *[Fault.answer(503, at=UPLOAD_PATH)] * 3)
    found = run(PDF)
    assert (found.failed.attempts, len(found.requests), found.uploads) == (6, 3, 3)
    assert within(waits, 2, 4, 2, 4)


@pytest.mark.parametrize("at", ["", RECORDS, UPLOAD_PATH], ids=["both", "record", "file"])
@pytest.mark.parametrize("statuses", [(503,), (429,), (429, 503)], ids=str)
@pytest.mark.parametrize("told", ["0.001", "30"])
def test_a_server_that_always_fails_is_given_up(
    kustomer: Kustomer, run: Step, waits: list[float], statuses: tuple[int, ...], at: str, told: str
) -> None:
    """After few requests, and 75 s of waiting in all."""
    faults = [Fault.answer(status, at=at, headers={"Retry-After": told}) for status in statuses]
    kustomer.fault(*faults * 50)
    found = run(PDF)
    assert found.failed.attempts == len(found.requests) + found.uploads <= 9
    assert sum(waits) <= 75
    assert found.files == {}


@pytest.mark.parametrize("at", [RECORDS, UPLOAD_PATH], ids=["record", "file"])
@pytest.mark.parametrize("fault", [Fault.hang(), Fault.drip(0.02)], ids=["hang", "drip"])
def test_an_answer_that_does_not_come_in_time_is_asked_for_again(
    kustomer: Kustomer, run: Step, monkeypatch: pytest.MonkeyPatch, fault: Fault, at: str
) -> None:
    """A byte now and then doesn't start the limit anew."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.2)
    kustomer.fault(dataclasses.replace(fault, at=at))
    started = time.monotonic()
    found = run(PDF)
    assert 0.2 <= time.monotonic() - started < 1.2
    assert (found.file.head, len(found.requests) + found.uploads) == (CONTENT, 3)


def test_a_host_that_never_answers_is_given_up(kustomer: Kustomer, run: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """After three tries, and a later run succeeds."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.2)
    kustomer.fault(*[Fault.hang(at=UPLOAD_PATH, store=True)] * 3)
    started = time.monotonic()
    error = run(PDF).failed
    assert 0.6 <= time.monotonic() - started < 1.6
    assert (type(error), error.outcome, error.retryable) == (NoAnswer, "unknown", True)
    assert "no complete answer within 0.2 s" in str(error)
    assert run(PDF).file.head == CONTENT


def test_a_host_that_stops_reading_is_given_up(kustomer: Kustomer, run: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sending is limited like waiting for the answer."""
    monkeypatch.setattr(wire, "READ_SECONDS", 0.2)
    monkeypatch.setattr(client, "OTHER_ATTEMPTS", 1)
    content = base64.b64encode(bytes(8 << 20)).decode()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        kustomer.fault(place(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
        started = time.monotonic()
        with pytest.raises(NoAnswer) as caught:
            main({"apiKey": kustomer.keys["full"], "baseUrl": kustomer.url}, {"content": content})  # type: ignore[arg-type]
        assert 0.2 <= time.monotonic() - started < 2.2
    assert (caught.value.outcome, caught.value.retryable, caught.value.attempts) == ("unknown", True, 2)


# Secrets


def test_neither_key_nor_form_is_in_any_error_or_log(
    kustomer: Kustomer, run: Step, auth: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where the upload's host throws them back: who has policy and signature may upload in Kustomer's name."""
    secrets = [auth["apiKey"], "eyJleHBpcmF0aW9uIjoi", "5f0c9d2e" * 8]
    said = " ".join(("You sent", *secrets))
    for status in (302, 400, 403, 429, 500):
        headers = {"x-amz-request-id": said, "Location": f"https://{secrets[2]}.example/", **HOUR}
        fields = {"key": "1", "Policy": secrets[1], "X-Amz-Signature": secrets[2]}
        kustomer.fault(place(kustomer.upload_url, **fields))
        kustomer.fault(Fault.answer(status, xml("SignatureDoesNotMatch", said), headers, at=UPLOAD_PATH))
        assert spilled(run(PDF).failed, *secrets) == [], status
    assert [each for each in secrets if each in "".join(capsys.readouterr())] == []


def test_an_upload_that_works_logs_two_lines(
    storage: Workspace, run: Step, auth: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the id, and without key, token and name."""
    made = run(FILE).made
    record, upload = capsys.readouterr().out.splitlines()
    assert re.fullmatch(rf"kustomer: 201, attachment {made['_id']} created, 1 request, \d+\.\d\d s", record)
    assert re.fullmatch(r"kustomer: 204, file uploaded, 2 requests, \d+\.\d\d s", upload)


# As a job


def test_job_uploads_a_large_file_with_little_memory(kustomer: Kustomer, storage: Workspace, auth: Body) -> None:
    """With nothing but what its lock pins; its memory doesn't grow with the file."""
    peaks = []
    for size in (1, 25_000_001):
        storage.store("backup.zip", size)
        job = worker.run(STEP, {"auth": auth, "body": {"file": {"s3": "backup.zip"}}}, workspace=storage)
        assert job.ok, job.error
        stored = kustomer.files[job.result["_id"]]
        assert (stored.size, stored.sha256) == (size, sha256_of(size))
        assert job.result == {
            "_id": kustomer.attachments[-1]["id"],
            "name": "backup.zip",
            "contentType": "application/zip",
            "contentLength": size,
        }
        assert job.logs.count("\n") == 2
        peaks.append(job.peak_kib or 0)
    assert peaks[1] - peaks[0] < 8 << 10


def test_failed_job_tells_a_flow_what_to_do(kustomer: Kustomer, storage: Workspace, auth: Body) -> None:
    """What retry_if and a failure module read is there, and neither key nor token."""
    storage.storage_fault("error")
    job = worker.run(STEP, {"auth": auth, "body": FILE}, workspace=storage)
    assert not job.ok
    assert job.error is not None
    assert job.error["name"] == "FileNotRead"
    assert job.error["extra"] == {
        "status": 500,
        "outcome": "not_sent",
        "retryable": True,
        "retry_after": None,
        "attempts": 0,
        "request_id": None,
        "errors": [
            {
                "code": "refused",
                "title": None,
                "detail": "Internal: Error retrieving file: error sending request",
                "path": "body.file",
            }
        ],
    }
    assert kustomer.requests == []
    assert not {auth["apiKey"], storage.token} & set(re.findall(r"[\w.-]+", json.dumps([job.error, job.logs])))

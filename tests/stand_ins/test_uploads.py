"""Attachments, and the host of uploads beside the stand-in for Kustomer: as strict as Amazon S3 says it is."""

import base64
import hashlib
import http.client
import json
import socket
import ssl
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.stand_ins.conftest import ask
from tests.standin.kustomer import UPLOAD_PATH, Fault, Kustomer
from tests.standin.uploads import sign

CONTENT = b"%PDF-1.7 \r\n--not a boundary\r\n"
NAME, TYPE = "invoice 1042 \u00e9.pdf", "application/pdf"


def attach(kustomer: Kustomer, length: float = len(CONTENT), **fields: Any) -> requests.Response:
    """Create an attachment for a file of this size."""
    body = {"name": NAME, "contentType": TYPE, "contentLength": length} | fields
    return ask(kustomer, "POST", "/v1/attachments", json=body)


def form(kustomer: Kustomer, length: float = len(CONTENT), **fields: Any) -> tuple[str, dict[str, str]]:
    """Create an attachment, and give its id and its form's fields."""
    created = attach(kustomer, length, **fields).json()
    return created["data"]["id"], created["meta"]["upload"]["fields"]


# A part of a form: its name, and its value or a file's name and content.
Part = tuple[str, str | tuple[str | None, bytes]]


def upload(kustomer: Kustomer, parts: Iterable[Part], **more: Any) -> requests.Response:
    """Send a form whose parts come in this order."""
    files = [(name, (None, value) if isinstance(value, str) else value) for name, value in parts]
    return requests.post(kustomer.upload_url, files=files, timeout=5, **more)


def whole(fields: dict[str, str], content: bytes = CONTENT) -> list[Part]:
    """The parts of a form as they should be: every field, then the file."""
    return [*fields.items(), ("file", (NAME, content))]


def refusal(response: requests.Response) -> tuple[int, str, str]:
    """What S3 says in its XML: status, code and text."""
    error = ElementTree.fromstring(response.content)  # noqa: S314
    assert response.headers["Content-Type"] == "application/xml"
    assert error.tag == "Error"
    assert error.findtext("RequestId") == response.headers["x-amz-request-id"]
    return response.status_code, error.findtext("Code", ""), error.findtext("Message", "")


def denied(why: str) -> tuple[int, str, str]:
    """What S3 says of a form that its policy doesn't allow."""
    return 403, "AccessDenied", f"Invalid according to Policy: {why}"


# Attachments


def test_an_attachment_comes_with_a_form_for_its_file(kustomer: Kustomer) -> None:
    """The answer has the documented attributes, and the fields of the published example in its order."""
    response = attach(kustomer)
    data, meta = response.json()["data"], response.json()["meta"]
    assert response.status_code == 201
    assert kustomer.attachments == [data]
    assert (data["type"], data["links"]["self"]) == ("attachment", f"/v1/attachments/{data['id']}")
    assert data["attributes"] == {
        "name": NAME,
        "contentType": TYPE,
        "contentLength": len(CONTENT),
        "uploaded": False,
        "redacted": False,
    }
    names = "key acl Content-Type X-Amz-Meta-Attachment-Id bucket X-Amz-Algorithm X-Amz-Credential X-Amz-Date"
    assert list(meta["upload"]["fields"]) == [*names.split(), "Policy", "X-Amz-Signature"]
    assert meta["upload"]["url"] == kustomer.upload_url
    assert meta["upload"]["fields"]["key"] == f"attachments/{kustomer.org}/{data['id']}-{NAME}"
    assert ask(kustomer, "GET", f"/v1/attachments/{data['id']}").json() == {"data": data}


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"name": ""}, "name"),
        ({"contentType": ""}, "contentType"),
        ({"contentLength": "5"}, "contentLength"),
        ({"size": 5}, "size"),
        ({"externalUrl": "http://files.acme.example/1"}, "externalUrl"),
        ({"externalUrl": "https://ada:secret@files.acme.example/1"}, "externalUrl"),
        ({"externalUrl": "https:///1"}, "externalUrl"),
        ({"externalUrl": "https://[/1"}, "externalUrl"),
        ({"externalUrl": "https://files.acme.example/1", "renderMode": "none"}, "renderMode"),
        ({"renderMode": "default"}, "renderMode"),
    ],
)
def test_an_attachment_keeps_to_its_schema(kustomer: Kustomer, fields: dict[str, Any], parameter: str) -> None:
    """What is refused is named, and not created."""
    response = attach(kustomer, **fields)
    assert response.status_code == 400
    assert [error["source"]["parameter"] for error in response.json()["errors"]] == [parameter]
    assert kustomer.attachments == []


def test_an_attachment_needs_name_type_and_length(kustomer: Kustomer) -> None:
    """All three of them."""
    response = ask(kustomer, "POST", "/v1/attachments", json={})
    missing = [error["source"]["parameter"] for error in response.json()["errors"]]
    assert missing == ["name", "contentType", "contentLength"]


@pytest.mark.parametrize(
    ("fields", "related"),
    [
        ({}, "https://files.acme.example/1"),
        ({"renderMode": "default"}, "https://files.acme.example/1"),
        ({"renderMode": "metadata_only"}, None),
    ],
)
def test_an_external_file_needs_no_upload(kustomer: Kustomer, fields: dict[str, Any], related: str | None) -> None:
    """It counts as uploaded, there is no form, and its URL is shown unless that is unwanted."""
    created = attach(kustomer, externalUrl="https://files.acme.example/1", **fields).json()
    assert "meta" not in created
    assert created["data"]["attributes"]["uploaded"] is True
    found = ask(kustomer, "GET", f"/v1/attachments/{created['data']['id']}").json()["data"]
    assert found["links"].get("related") == related


@pytest.mark.parametrize(
    ("role", "creates", "reads"),
    [
        ("org.permission.message.create", 201, 403),
        ("org.permission.note.create", 201, 403),
        ("org.user.message.write", 201, 403),
        ("org.user.note.write", 201, 403),
        ("org.permission.attachment.read", 403, 200),
        ("org.user.attachment.read", 403, 200),
        ("org.permission.message.update", 403, 403),
    ],
)
def test_attachments_need_a_role(kustomer: Kustomer, role: str, creates: int, reads: int) -> None:
    """Those of messages or notes to create one, their own to read one."""
    known, token = attach(kustomer).json()["data"]["id"], kustomer.key(role)
    body = {"name": NAME, "contentType": TYPE, "contentLength": 1}
    assert ask(kustomer, "POST", "/v1/attachments", token, json=body).status_code == creates
    assert ask(kustomer, "GET", f"/v1/attachments/{known}", token).status_code == reads


# Uploads


def test_an_uploaded_file_is_kept(kustomer: Kustomer) -> None:
    """Answered 204 without a body; the attachment says so from then on."""
    attachment, fields = form(kustomer)
    response = upload(kustomer, whole(fields))
    assert (response.status_code, response.content) == (204, b"")
    stored = kustomer.files[attachment]
    assert (stored.size, stored.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert (stored.head, stored.filename, stored.content_type) == (CONTENT, NAME, TYPE)
    assert stored.fields == [*fields, "file"]
    assert kustomer.attachments[0]["attributes"]["uploaded"] is True
    assert ask(kustomer, "GET", f"/v1/attachments/{attachment}").json()["data"] == kustomer.attachments[0]


def test_uploads_are_seen_apart_from_requests(kustomer: Kustomer) -> None:
    """Without their bodies, and only on the host of uploads."""
    _, fields = form(kustomer)
    upload(kustomer, whole(fields), headers={"X-Test": "1"})
    (seen,) = kustomer.upload_requests
    assert (seen.method, seen.path, seen.body, seen.headers["x-test"]) == ("POST", UPLOAD_PATH, b"", "1")
    assert [seen.path for seen in kustomer.requests] == ["/v1/attachments"]
    assert kustomer.posts == []


@pytest.mark.parametrize("content", [b"", b"\r\n", b"--", bytes(range(256)) * 1000], ids=len)
def test_a_file_is_kept_to_the_byte(kustomer: Kustomer, content: bytes) -> None:
    """Empty ones and line ends included."""
    attachment, fields = form(kustomer, len(content))
    assert upload(kustomer, whole(fields, content)).status_code == 204
    assert kustomer.files[attachment].head == content


def test_a_second_upload_replaces_the_first(kustomer: Kustomer) -> None:
    """As the key is the same."""
    attachment, fields = form(kustomer)
    for content in (CONTENT, CONTENT[::-1]):
        assert upload(kustomer, whole(fields, content)).status_code == 204
        assert kustomer.files[attachment].head == content


def send(url: str, head: bytes, blocks: Iterable[bytes], tail: bytes, length: int) -> http.client.HTTPResponse:
    """Stream a form of one boundary."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(length)}

    def body() -> Iterator[bytes]:
        yield head
        yield from blocks
        yield tail

    connection.request("POST", urlsplit(url).path, body(), headers)
    response = connection.getresponse()
    response.read()
    connection.close()
    return response


def test_a_file_of_300_mb_is_read_as_a_stream(kustomer: Kustomer) -> None:
    """Only its size, its hash and its beginning are kept."""
    block, count = bytes(range(256)) * 4096, 300
    attachment, fields = form(kustomer, len(block) * count)
    head = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value.encode())
        for name, value in fields.items()
    )
    head += b'--b\r\nContent-Disposition: form-data; name="file"; filename="big"\r\n\r\n'
    tail = b"\r\n--b--\r\n"
    length = len(head) + len(block) * count + len(tail)
    assert send(kustomer.upload_url, head, (block for _ in range(count)), tail, length).status == 204
    stored, digest = kustomer.files[attachment], hashlib.sha256()
    for _ in range(count):
        digest.update(block)
    assert (stored.size, stored.sha256, len(stored.head)) == (len(block) * count, digest.hexdigest(), 1 << 20)


def test_a_part_that_is_multipart_itself_is_a_file(kustomer: Kustomer) -> None:
    """Nothing is read into it."""
    attachment, fields = form(kustomer)
    files = {"file": (NAME, CONTENT, "multipart/mixed")}
    assert requests.post(kustomer.upload_url, data=fields, files=files, timeout=5).status_code == 204
    assert kustomer.files[attachment].content_type == TYPE


# What S3 refuses


@pytest.mark.parametrize(
    ("content", "code"), [(CONTENT[:-1], "EntityTooSmall"), (CONTENT + b"!", "EntityTooLarge"), (b"", "EntityTooSmall")]
)
def test_a_file_has_the_announced_size(kustomer: Kustomer, content: bytes, code: str) -> None:
    """To the byte; what doesn't is not kept."""
    _, fields = form(kustomer)
    assert refusal(upload(kustomer, whole(fields, content)))[:2] == (400, code)
    assert (kustomer.files, kustomer.attachments[0]["attributes"]["uploaded"]) == ({}, False)


@pytest.mark.parametrize("size", [0.5, -1, 1e300])
def test_no_file_has_an_impossible_size(kustomer: Kustomer, size: float) -> None:
    """The schema lets an attachment have it, and then nothing can be uploaded."""
    _, fields = form(kustomer, size)
    assert refusal(upload(kustomer, whole(fields)))[0] == 400


def test_fields_below_the_file_are_ignored(kustomer: Kustomer) -> None:
    """So whatever should have come before it is missing."""
    _, fields = form(kustomer)
    for late in fields:
        parts = whole({name: value for name, value in fields.items() if name != late})
        response = upload(kustomer, [*parts, (late, fields[late])])
        if late in ("acl", "Content-Type", "X-Amz-Meta-Attachment-Id", "bucket"):
            failed = json.dumps(["eq", f"${late}", fields[late]])
            assert refusal(response) == denied(f"Policy Condition failed: {failed}")
        else:
            text = f"Bucket POST must contain a field named '{late}'.  "
            text += "If it is specified, please check the order of the fields."
            assert refusal(response) == (400, "InvalidArgument", text)
    assert kustomer.files == {}
    attachment, fields = form(kustomer)
    assert upload(kustomer, [*whole(fields), ("unknown", "1")]).status_code == 204
    assert kustomer.files[attachment].fields == [*fields, "file", "unknown"]


def test_every_field_is_needed(kustomer: Kustomer) -> None:
    """Each is a condition of the policy, or signs it."""
    _, fields = form(kustomer)
    for left_out in fields:
        parts = whole({name: value for name, value in fields.items() if name != left_out})
        assert refusal(upload(kustomer, parts))[0] in (400, 403), left_out
    assert kustomer.files == {}


@pytest.mark.parametrize("name", ["key", "acl", "Content-Type", "X-Amz-Meta-Attachment-Id", "bucket", "X-Amz-Date"])
def test_a_field_has_the_value_of_its_condition(kustomer: Kustomer, name: str) -> None:
    """And no other, nor the same one twice, as values of one name are joined."""
    _, fields = form(kustomer)
    failed = denied(f"Policy Condition failed: {json.dumps(['eq', f'${name}', fields[name]])}")
    assert refusal(upload(kustomer, whole(fields | {name: fields[name] + "x"}))) == failed
    assert refusal(upload(kustomer, [(name, fields[name]), *whole(fields)])) == failed
    assert kustomer.files == {}


def test_names_of_fields_may_have_any_case(kustomer: Kustomer) -> None:
    """Amazon's own examples spell conditions in small letters and fields in others."""
    _, fields = form(kustomer)
    assert upload(kustomer, whole({name.lower(): value for name, value in fields.items()})).status_code == 204


def test_a_field_without_a_condition_is_refused(kustomer: Kustomer) -> None:
    """Unless its name begins with x-ignore-."""
    _, fields = form(kustomer)
    extra = denied("Extra input fields: filename, submit")
    assert refusal(upload(kustomer, whole(fields | {"Filename": "1", "submit": "1"}))) == extra
    own = denied("Extra input fields: _charset_")
    assert refusal(upload(kustomer, [("_charset_", "utf-8"), *whole(fields)])) == own
    assert upload(kustomer, whole(fields | {"x-ignore-this": "1"})).status_code == 204


def test_the_files_name_is_put_in_for_its_variable(kustomer: Kustomer) -> None:
    """Before conditions are looked at, so that a name with the variable in it can't be uploaded."""
    _, fields = form(kustomer, name="${filename}.pdf")
    assert refusal(upload(kustomer, whole(fields)))[:2] == (403, "AccessDenied")
    _, fields = form(kustomer)
    fields["key"] = fields["key"].removesuffix(NAME) + "${filename}"
    assert upload(kustomer, [*fields.items(), ("file", (f"C:\\files/{NAME}", CONTENT))]).status_code == 204


def test_a_policy_expires(kustomer: Kustomer) -> None:
    """After the seconds that were set when the attachment was created."""
    kustomer.now = lambda: 1_800_000_000.5
    kustomer.policy_seconds = 60
    _, fields = form(kustomer)
    kustomer.now = lambda: 1_800_000_060.4
    assert upload(kustomer, whole(fields)).status_code == 204
    kustomer.now = lambda: 1_800_000_060.5
    assert refusal(upload(kustomer, whole(fields))) == denied("Policy expired.")


def test_a_form_is_signed(kustomer: Kustomer) -> None:
    """Policy, scope and signature belong together, and the key to this bucket."""
    _, fields = form(kustomer)
    policy = json.loads(base64.b64decode(fields["Policy"]))
    longer = base64.b64encode(json.dumps(policy | {"expiration": "2099-01-01T00:00:00.000Z"}).encode()).decode()
    access_key, _, scope = fields["X-Amz-Credential"].partition("/")
    for wrong in (
        {"Policy": longer},
        {"X-Amz-Signature": fields["X-Amz-Signature"][::-1]},
        {"X-Amz-Signature": "\u00e9"},
        {"X-Amz-Credential": f"{access_key}/{scope.replace('us-east-1', 'eu-west-1')}"},
        {"X-Amz-Credential": access_key},
    ):
        assert refusal(upload(kustomer, whole(fields | wrong)))[:2] == (403, "SignatureDoesNotMatch")
    other = {"X-Amz-Credential": f"AKIAIOSFODNN7EXAMPLE/{scope}"}
    assert refusal(upload(kustomer, whole(fields | other)))[:2] == (403, "InvalidAccessKeyId")
    assert kustomer.files == {}


def test_signing_is_amazons() -> None:
    """The example of docs.aws.amazon.com/AmazonS3/latest/API/sigv4-post-example.html."""
    policy = """{ "expiration": "2015-12-30T12:00:00.000Z",
  "conditions": [
    {"bucket": "sigv4examplebucket"},
    ["starts-with", "$key", "user/user1/"],
    {"acl": "public-read"},
    {"success_action_redirect": "http://sigv4examplebucket.s3.amazonaws.com/successful_upload.html"},
    ["starts-with", "$Content-Type", "image/"],
    {"x-amz-meta-uuid": "14365123651274"},
    {"x-amz-server-side-encryption": "AES256"},
    ["starts-with", "$x-amz-meta-tag", ""],

    {"x-amz-credential": "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"},
    {"x-amz-algorithm": "AWS4-HMAC-SHA256"},
    {"x-amz-date": "20151229T000000Z" }
  ]
}""".replace("\n", "\r\n")
    encoded = base64.b64encode(policy.encode()).decode()
    secret, scope = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", ("20151229", "us-east-1", "s3", "aws4_request")
    expected = "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e"
    assert sign(secret, scope, encoded) == expected


def test_an_authorization_header_is_refused(kustomer: Kustomer) -> None:
    """Only one way to authenticate is allowed; the answer tells the header's value to whoever logs it."""
    _, fields = form(kustomer)
    response = upload(kustomer, whole(fields), headers={"Authorization": "Bearer secret"})
    status, code, message = refusal(response)
    assert (status, code) == (400, "InvalidArgument")
    assert message.startswith("Only one auth mechanism allowed")
    assert "<ArgumentValue>Bearer secret</ArgumentValue>" in response.text
    assert kustomer.files == {}


@pytest.mark.parametrize("count", [0, 2])
def test_a_form_has_one_file(kustomer: Kustomer, count: int) -> None:
    """Not none and not two, and under no other name."""
    _, fields = form(kustomer)
    expected = (400, "InvalidArgument", "POST requires exactly one file upload per request.")
    response = upload(kustomer, [*fields.items(), *[("file", (NAME, CONTENT))] * count])
    assert refusal(response) == expected
    assert f"<ArgumentName>file</ArgumentName><ArgumentValue>{count}</ArgumentValue>" in response.text
    assert refusal(upload(kustomer, [*fields.items(), ("upload", (NAME, CONTENT))])) == expected
    assert kustomer.files == {}


def test_what_comes_before_the_file_has_a_limit(kustomer: Kustomer) -> None:
    """20 KB, names and boundaries included, so a big file under another name is too much."""
    _, fields = form(kustomer)
    assert upload(kustomer, whole(fields | {"x-ignore-this": "x" * 16_000})).status_code == 204
    too_much: list[list[Part]] = [
        whole(fields | {"x-ignore-this": "x" * 20_000}),
        whole(fields | {f"x-ignore-{number}": "" for number in range(300)}),
        [*fields.items(), ("upload", (NAME, b"x" * 1_000_000))],
    ]
    for parts in too_much:
        assert refusal(upload(kustomer, parts))[:2] == (400, "MaxPostPreDataLengthExceeded")


def test_a_key_has_a_limit(kustomer: Kustomer) -> None:
    """1024 bytes, so the name of an attachment can be too long for S3."""
    room = 1024 - len(form(kustomer, name="x")[1]["key"]) + 1
    for name, status in (("x" * room, 204), ("x" * (room + 1), 400), ("\u00e9" * room, 400)):
        _, fields = form(kustomer, name=name)
        assert upload(kustomer, whole(fields)).status_code == status


def test_a_length_is_needed(kustomer: Kustomer) -> None:
    """A form in chunks has none."""
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    response = requests.post(kustomer.upload_url, data=iter([b"--b\r\n"]), headers=headers, timeout=5)
    assert refusal(response)[:2] == (411, "MissingContentLength")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=b"),
        (b"nothing", "multipart/form-data; boundary=b"),
        (b"--b--\r\n", "multipart/form-data"),
        (b"--b\r\n\r\nvalue\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\nno header\r\n\r\nvalue\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: rubbish;;=\r\n\r\nvalue\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data; name=key\r\n\r\nvalue", "multipart/form-data; boundary=b"),
        (
            b"--b\r\nContent-Disposition: form-data; name=key\r\n\r\n\xff\r\n--b--\r\n",
            "multipart/form-data; boundary=b",
        ),
    ],
)
def test_a_bad_form_is_refused(kustomer: Kustomer, body: bytes, kind: str) -> None:
    """Without boundaries, names or an end, or not in UTF-8."""
    response = requests.post(kustomer.upload_url, data=body, headers={"Content-Type": kind}, timeout=5)
    assert refusal(response)[:2] == (400, "MalformedPOSTRequest")


def opened(kustomer: Kustomer, kind: str, length: int) -> socket.socket:
    """Open a connection and send the head of a POST whose body is yet to come."""
    place = urlsplit(kustomer.upload_url)
    connection = socket.create_connection((str(place.hostname), place.port or 0), timeout=5)
    head = f"POST {place.path} HTTP/1.1\r\nHost: {place.netloc}\r\n"
    connection.sendall(f"{head}Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode())
    return connection


def test_an_upload_that_lacks_its_end_is_refused(kustomer: Kustomer) -> None:
    """Even if the file itself is whole."""
    _, fields = form(kustomer)
    request = requests.Request("POST", kustomer.upload_url, files=dict(whole(fields))).prepare()
    assert isinstance(request.body, bytes)
    cut = request.body.rstrip()[:-40]
    headers = {"Content-Type": request.headers["Content-Type"]}
    response = requests.post(kustomer.upload_url, data=cut, headers=headers, timeout=5)
    assert refusal(response)[:2] == (400, "MalformedPOSTRequest")
    assert kustomer.files == {}


def test_an_upload_that_breaks_off_is_not_kept(kustomer: Kustomer) -> None:
    """S3 never stores a part of a file."""
    _, fields = form(kustomer)
    request = requests.Request("POST", kustomer.upload_url, files=dict(whole(fields))).prepare()
    assert isinstance(request.body, bytes)
    with opened(kustomer, request.headers["Content-Type"], len(request.body)) as connection:
        connection.sendall(request.body[:-1])
    assert upload(kustomer, [("key", "1")]).status_code == 400
    assert len(kustomer.upload_requests) == 2
    assert kustomer.files == {}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", UPLOAD_PATH, 403, "AccessDenied"),
        ("PUT", f"{UPLOAD_PATH}/key", 403, "AccessDenied"),
        ("POST", f"{UPLOAD_PATH}/key", 405, "MethodNotAllowed"),
        ("POST", "/", 404, "NoSuchBucket"),
        ("POST", f"{UPLOAD_PATH}s", 404, "NoSuchBucket"),
    ],
)
def test_only_forms_for_the_bucket_are_taken(
    kustomer: Kustomer, method: str, path: str, status: int, code: str
) -> None:
    """Nothing else is known there."""
    base = kustomer.upload_url.removesuffix(UPLOAD_PATH)
    response = requests.request(method, base + path, files={"file": b""}, timeout=5)
    assert refusal(response)[:2] == (status, code)


def test_what_is_not_a_form_is_refused(kustomer: Kustomer) -> None:
    """A form without a file is sent in another encoding by many a client."""
    _, fields = form(kustomer)
    response = requests.post(kustomer.upload_url, data=fields, timeout=5)
    assert refusal(response)[:2] == (400, "RequestIsNotMultiPartContent")


# Faults


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("name", ["reset", "close", "cut", "drip", "answer"])
def test_a_fault_of_an_upload_keeps_the_file_only_if_told(kustomer: Kustomer, name: str, store: bool) -> None:
    """It is used by the upload, not by the request before it; the next upload is served."""
    faults = {
        "reset": Fault.reset(at=UPLOAD_PATH, store=store),
        "close": Fault.close(at=UPLOAD_PATH, store=store),
        "cut": Fault.cut(at=UPLOAD_PATH, store=store),
        "drip": Fault.drip(0, at=UPLOAD_PATH, store=store),
        "answer": Fault.answer(503, b"<Error/>", at=UPLOAD_PATH, store=store),
    }
    kustomer.fault(faults[name])
    attachment, fields = form(kustomer)
    if name in ("answer", "drip"):
        response = upload(kustomer, whole(fields))
        assert response.status_code == (503 if name == "answer" else 204)
        assert ("Content-Length" in response.headers) == (name == "answer")
        assert response.headers["x-amz-request-id"]
    else:
        with pytest.raises(requests.ConnectionError):
            upload(kustomer, whole(fields))
    assert (attachment in kustomer.files) == store
    assert kustomer.attachments[0]["attributes"]["uploaded"] is store
    assert upload(kustomer, whole(fields)).status_code == 204
    assert len(kustomer.upload_requests) == 2


def test_an_upload_is_reset_before_it_is_read(kustomer: Kustomer) -> None:
    """RST, not FIN, while the client still has everything to send."""
    kustomer.fault(Fault.reset(before_reading=True, at=UPLOAD_PATH))
    connection = opened(kustomer, "multipart/form-data; boundary=b", 1_000_000)
    with connection, pytest.raises(ConnectionResetError):
        connection.recv(1)
    assert (len(kustomer.upload_requests), kustomer.files) == (1, {})


@pytest.mark.parametrize("store", [False, True])
def test_a_hanging_upload_ends_when_released(kustomer: Kustomer, store: bool) -> None:
    """With its answer if the file was kept, without one otherwise."""
    kustomer.fault(Fault.hang(at=UPLOAD_PATH, store=store))
    attachment, fields = form(kustomer)
    request = requests.Request("POST", kustomer.upload_url, files=dict(whole(fields))).prepare()
    connection = http.client.HTTPConnection(urlsplit(kustomer.upload_url).netloc, timeout=5)
    connection.request("POST", UPLOAD_PATH, request.body, {"Content-Type": request.headers["Content-Type"]})
    # The server takes requests as they come: when this one is answered, the other has been taken.
    assert upload(kustomer, [("key", "1")]).status_code == 400
    assert (attachment in kustomer.files) == store
    kustomer.release()
    if store:
        assert connection.getresponse().status == 204
    else:
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
    connection.close()


def test_a_fault_of_an_attachment_leaves_uploads_alone(kustomer: Kustomer) -> None:
    """And creates it only if told."""
    kustomer.fault(Fault.answer(500, at="/v1/attachments"), Fault.answer(502, at="/v1/attachments", store=True))
    assert (attach(kustomer).status_code, len(kustomer.attachments)) == (500, 0)
    assert (attach(kustomer).status_code, len(kustomer.attachments)) == (502, 1)
    assert attach(kustomer).status_code == 201


# The server


def test_clearing_forgets_files(kustomer: Kustomer) -> None:
    """Attachments and what was sent too; a form from before is still good for its key."""
    attachment, fields = form(kustomer)
    upload(kustomer, whole(fields))
    kustomer.clear()
    assert (kustomer.attachments, kustomer.files, kustomer.upload_requests) == ([], {}, [])
    assert ask(kustomer, "GET", f"/v1/attachments/{attachment}").status_code == 404
    assert upload(kustomer, whole(fields)).status_code == 204
    assert kustomer.attachments == []


def test_uploads_are_served_with_tls_too(tls: tuple[ssl.SSLContext, str]) -> None:
    """As localhost, with the same certificate, on a port of their own."""
    context, trusted = tls
    with Kustomer(tls=context) as kustomer:
        body = {"name": NAME, "contentType": TYPE, "contentLength": len(CONTENT)}
        created = ask(kustomer, "POST", "/v1/attachments", json=body, verify=trusted).json()
        url, fields = created["meta"]["upload"]["url"], created["meta"]["upload"]["fields"]
        assert (urlsplit(url).scheme, urlsplit(url).hostname) == ("https", "localhost")
        assert urlsplit(url).port != urlsplit(kustomer.url).port
        assert upload(kustomer, whole(fields), verify=trusted).status_code == 204
        assert created["data"]["id"] in kustomer.files

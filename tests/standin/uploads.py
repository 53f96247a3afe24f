"""Where files are uploaded to: Amazon S3's POST of a form, as strict as Amazon says that it is.

The pages are under docs.aws.amazon.com/AmazonS3/latest/API: RESTObjectPOST, sigv4-UsingHTTPPOST,
sigv4-HTTPPOSTForms, sigv4-HTTPPOSTConstructPolicy and ErrorResponses. Where S3's real answers were captured
(in the issues of public repositories), their codes and texts are taken; the rest of the texts are ours.
"""

import base64
import hashlib
import hmac
import html
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import BadHttpMessage
from multidict import CIMultiDictProxy

from tests.standin.faults import Answer
from tests.standin.records import timestamp

BUCKET = "attachments-bucket"
# The bucket is in the path, as S3 allows: names of hosts would need a resolver.
UPLOAD_PATH = f"/{BUCKET}"
REGION = "us-east-1"

# How much of a file is kept, and how much of it is read at once.
HEAD = 1 << 20
CHUNK = 1 << 20

# sigv4-HTTPPOSTForms: form data and boundaries without the file's content can't exceed 20 KB, captured as 20480.
MAX_FIELDS = 20_480
# docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html: bytes of UTF-8.
MAX_KEY = 1024

# The fields that authenticate a form, besides those of its policy.
_SIGNING = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Signature", "Policy")
# sigv4-HTTPPOSTConstructPolicy: what needs no condition, besides the file and what begins with x-ignore-.
_UNCONDITIONAL = {"policy", "x-amz-signature"}

# ErrorResponses: the status of each code.
_STATUS = {
    "AccessDenied": 403,
    "EntityTooLarge": 400,
    "EntityTooSmall": 400,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "KeyTooLongError": 400,
    "MalformedPOSTRequest": 400,
    "MaxPostPreDataLengthExceeded": 400,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "NoSuchBucket": 404,
    "RequestIsNotMultiPartContent": 400,
    "SignatureDoesNotMatch": 403,
}

_MALFORMED = "The body of your POST request is not well-formed multipart/form-data."


@dataclass(frozen=True)
class StoredFile:
    """An uploaded file: its size, hash and beginning, and of the form the names of the fields as they came.

    `content_type` is the form's, which is what S3 stores; the file's own is not looked at.
    """

    size: int
    sha256: str
    head: bytes
    filename: str | None
    content_type: str
    fields: list[str]


class _RefusedError(Exception):
    """S3 refuses, with a code, a text and details that some codes have."""

    def __init__(self, code: str, message: str, **details: object) -> None:
        super().__init__(code)
        self.code, self.message, self.details = code, message, details


class _Form(MultipartReader):
    """Reads each part as it is: S3 doesn't look into a file that is multipart itself."""

    def __init__(self, request: web.BaseRequest) -> None:
        # Of a form, aiohttp would keep a field named _charset_ to itself.
        parameters = request.headers["Content-Type"][len("multipart/form-data") :]
        super().__init__({"Content-Type": f"multipart/mixed{parameters}"}, request.content)

    async def part(self) -> BodyPartReader | None:
        """Give the next part, if there is one more."""
        return cast("BodyPartReader | None", await self.next())

    def overhead(self, part: BodyPartReader) -> int:
        """Count what a part is sent with: its boundary and its headers."""
        headers = "".join(f"{name}: {value}\r\n" for name, value in part.headers.items())
        return len(self._boundary) + len(headers.encode("utf-8", "surrogateescape")) + len("\r\n\r\n\r\n")

    def _get_part_reader(self, headers: CIMultiDictProxy[str]) -> BodyPartReader:
        return BodyPartReader(self._boundary, headers, self._content, subtype="form-data")


class Bucket:
    """A bucket that takes files with the forms it has signed, and nothing else."""

    def __init__(self, now: Callable[[], float]) -> None:
        """Make credentials; `now` gives epoch seconds."""
        self._now = now
        self._access_key = f"AKIA{secrets.token_hex(8).upper()}"
        self._secret = secrets.token_urlsafe(30)

    def form(self, *, key: str, attachment: str, content_type: str, size: float, seconds: float) -> dict[str, str]:
        """Sign a form for one file of exactly `size` bytes, which expires after `seconds`."""
        now = datetime.fromtimestamp(self._now(), UTC)
        scope = (f"{now:%Y%m%d}", REGION, "s3", "aws4_request")
        fields = {
            "key": key,
            "acl": "private",
            "Content-Type": content_type,
            "X-Amz-Meta-Attachment-Id": attachment,
            "bucket": BUCKET,
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Credential": "/".join((self._access_key, *scope)),
            "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}",
        }
        conditions = [*({name: value} for name, value in fields.items()), ["content-length-range", size, size]]
        policy = {"expiration": timestamp(self._now() + seconds), "conditions": conditions}
        encoded = base64.b64encode(json.dumps(policy).encode()).decode()
        return fields | {"Policy": encoded, "X-Amz-Signature": sign(self._secret, scope, encoded)}

    async def answer(self, request: web.BaseRequest) -> tuple[Answer, tuple[str, StoredFile] | None]:
        """Answer one request, and give the attachment's id and the file if it may be stored.

        What is refused early is answered early; the rest of its body is read after that, which is our choice.
        """
        ids = {"RequestId": secrets.token_hex(8).upper(), "HostId": secrets.token_urlsafe(40) + "=="}
        headers = {"x-amz-request-id": ids["RequestId"], "x-amz-id-2": ids["HostId"]}
        try:
            upload = await self._receive(request)
        except _RefusedError as refused:
            return _error(refused, ids).under(headers), None
        return Answer(204, headers=headers), upload

    async def _receive(self, request: web.BaseRequest) -> tuple[str, StoredFile]:
        _check_head(request)
        try:
            form = _Form(request)
            names, fields, part = await _read_fields(form)
            smallest, largest = self._check(fields)
            file = await _read_file(part, names, fields["content-type"])
            # What is below the file is ignored, but for another file.
            while (ignored := await form.part()) is not None:
                if ignored.name == "file":
                    raise _one_file(2)
                names.append(ignored.name or "")
        # What aiohttp makes of a bad form; tests turn its warnings into errors.
        except (ValueError, BadHttpMessage, Warning) as error:
            raise _RefusedError("MalformedPOSTRequest", _MALFORMED) from error
        if file.size < smallest:
            text = "Your proposed upload is smaller than the minimum allowed size"
            raise _RefusedError("EntityTooSmall", text, ProposedSize=file.size, MinSizeAllowed=smallest)
        if file.size > largest:
            text = "Your proposed upload exceeds the maximum allowed size"
            raise _RefusedError("EntityTooLarge", text, ProposedSize=file.size, MaxSizeAllowed=largest)
        return fields["x-amz-meta-attachment-id"], file

    def _check(self, fields: Mapping[str, str]) -> tuple[float, float]:
        """Check what stands before the file, by names in lower case; give the least and the greatest size."""
        for name in ("key", *_SIGNING):
            if name.lower() not in fields:
                text = f"Bucket POST must contain a field named '{name}'.  "
                text += "If it is specified, please check the order of the fields."
                raise _RefusedError("InvalidArgument", text, ArgumentName=name, ArgumentValue="")
        if len(fields["key"].encode()) > MAX_KEY:
            raise _RefusedError("KeyTooLongError", "Your key is too long", MaxSizeAllowed=MAX_KEY)
        self._check_signature(fields)
        # Signed, so that it is as `form` wrote it.
        policy = json.loads(base64.b64decode(fields["policy"]))
        if self._now() >= datetime.fromisoformat(policy["expiration"]).timestamp():
            raise _not_by_policy("Policy expired.")
        *exact, (_, smallest, largest) = policy["conditions"]
        expected = {name: value for condition in exact for name, value in condition.items()}
        for name, value in expected.items():
            if fields.get(name.lower()) != value:
                raise _not_by_policy(f"Policy Condition failed: {json.dumps(['eq', f'${name}', value])}")
        extra = fields.keys() - {name.lower() for name in expected} - _UNCONDITIONAL
        if extra := {name for name in extra if not name.startswith("x-ignore-")}:
            raise _not_by_policy(f"Extra input fields: {', '.join(sorted(extra))}")
        return smallest, largest

    def _check_signature(self, fields: Mapping[str, str]) -> None:
        access_key, *scope = fields["x-amz-credential"].split("/")
        if access_key != self._access_key:
            text = "The AWS Access Key Id you provided does not exist in our records."
            raise _RefusedError("InvalidAccessKeyId", text, AWSAccessKeyId=access_key)
        given = fields["x-amz-signature"]
        if not hmac.compare_digest(sign(self._secret, scope, fields["policy"]).encode(), given.encode()):
            text = "The request signature we calculated does not match the signature you provided. "
            text += "Check your key and signing method."
            details = {"AWSAccessKeyId": access_key, "StringToSign": fields["policy"], "SignatureProvided": given}
            raise _RefusedError("SignatureDoesNotMatch", text, **details)


def sign(secret: str, scope: Sequence[str], text: str) -> str:
    """Sign by Signature Version 4 (sigv4-UsingHTTPPOST); the scope is date, region, service and aws4_request."""
    key = b"AWS4" + secret.encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _check_head(request: web.BaseRequest) -> None:
    """Check what comes before the body."""
    authorization = request.headers.get("Authorization")
    if authorization is not None:
        text = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string "
        text += "parameter or the Authorization header should be specified"
        raise _RefusedError("InvalidArgument", text, ArgumentName="Authorization", ArgumentValue=authorization)
    bucket, _, key = request.path.removeprefix("/").partition("/")
    if bucket != BUCKET:
        raise _RefusedError("NoSuchBucket", "The specified bucket does not exist", BucketName=bucket)
    if request.method != "POST":
        raise _RefusedError("AccessDenied", "Access Denied")
    if key:
        text = "The specified method is not allowed against this resource."
        raise _RefusedError("MethodNotAllowed", text, Method="POST", ResourceType="OBJECT")
    # Whether a form may come in chunks is not documented, but the code is: refusing is our choice.
    if "Content-Length" not in request.headers:
        raise _RefusedError("MissingContentLength", "You must provide the Content-Length HTTP header.")
    if request.content_type != "multipart/form-data":
        text = "Bucket POST must be of the enclosure-type multipart/form-data."
        raise _RefusedError("RequestIsNotMultiPartContent", text)


async def _read_fields(form: _Form) -> tuple[list[str], dict[str, str], BodyPartReader]:
    """Read up to the file: the names as they came, the fields by name in lower case, and the file's part."""
    names: list[str] = []
    values: dict[str, list[str]] = {}
    room = MAX_FIELDS
    while (part := await form.part()) is not None:
        if part.name is None:
            raise _RefusedError("MalformedPOSTRequest", _MALFORMED)
        names.append(part.name)
        room = _left(room, form.overhead(part))
        if part.name == "file":
            return names, _expanded(values, part.filename or ""), part
        value = b""
        while not part.at_eof():
            chunk = await part.read_chunk()
            room = _left(room, len(chunk))
            value += chunk
        values.setdefault(part.name.lower(), []).append(value.decode("utf-8"))
    raise _one_file(0)


def _left(room: int, taken: int) -> int:
    """What is left of the room for fields."""
    if taken > room:
        text = "Your POST request fields preceeding the upload file was too large."
        raise _RefusedError("MaxPostPreDataLengthExceeded", text, MaxPostPreDataLengthBytes=MAX_FIELDS)
    return room - taken


def _expanded(values: Mapping[str, list[str]], filename: str) -> dict[str, str]:
    """Give each field's value as conditions see it: those of one name joined, the file's name in its place."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return {field: ",".join(given).replace("${filename}", name) for field, given in values.items()}


async def _read_file(part: BodyPartReader, names: list[str], content_type: str) -> StoredFile:
    """Read a file of any length, and keep little of it."""
    digest, head, size = hashlib.sha256(), bytearray(), 0
    while not part.at_eof():
        chunk = await part.read_chunk(CHUNK)
        digest.update(chunk)
        head += chunk[: HEAD - len(head)]
        size += len(chunk)
    return StoredFile(size, digest.hexdigest(), bytes(head), part.filename, content_type, names)


def _one_file(count: int) -> _RefusedError:
    # ErrorResponses has a code of its own for this, IncorrectNumberOfFilesInPostRequest; this one was captured.
    text = "POST requires exactly one file upload per request."
    return _RefusedError("InvalidArgument", text, ArgumentName="file", ArgumentValue=count)


def _not_by_policy(why: str) -> _RefusedError:
    return _RefusedError("AccessDenied", f"Invalid according to Policy: {why}")


def _error(refused: _RefusedError, ids: Mapping[str, str]) -> Answer:
    """Answer in XML (ErrorResponses)."""
    told = {"Code": refused.code, "Message": refused.message, **refused.details, **ids}
    elements = "".join(f"<{name}>{html.escape(str(value), quote=False)}</{name}>" for name, value in told.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{elements}</Error>'
    return Answer(_STATUS[refused.code], body.encode(), {"Content-Type": "application/xml"})

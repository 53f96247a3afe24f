# py: ==3.12.*
# What the storage needs: Windmill doesn't see an import where it is needed.
# extra_requirements:
# anyio==4.16.0
# h11==0.16.0
# httpcore==1.0.9
# httpx==0.28.1
# typing-extensions==4.16.0
# wmill==1.850.0
"""Upload attachment.

Puts a file into Kustomer, or a link to one, and returns what the attachments of a message take. The two calls are those
of https://developer.kustomer.com/docs/guides/attachments
"""

import base64
import mimetypes
import posixpath
import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from urllib3.filepost import encode_multipart_formdata
from urllib3.util import parse_url

from f.kustomer.shared.client import (
    CHUNK_BYTES,
    AccessDenied,
    Answer,
    Conflict,
    Field,
    Number,
    OddAnswer,
    ProblemClass,
    RecordKind,
    Rejected,
    Request,
    Run,
    ServerFailed,
    classify,
    dig,
    kustomer,
    log,
    start,
    unless_blank,
)


class S3Object:
    """A file in Windmill's object storage: https://www.windmill.dev/docs/core_concepts/object_storage_in_windmill."""

    s3: str = Field(required=True)
    storage: str
    filename: str


def _stored(file: dict[str, Any], path: str) -> BinaryIO:
    from f.kustomer.shared.storage import read  # only a file from the storage pays for it

    return read(file, path)


# Windmill's own spelling: https://www.windmill.dev/docs/core_concepts/object_storage_in_windmill
_S3_ADDRESS = re.compile(r"s3://([^/]*)/(.+)", re.DOTALL)


def s3_object(value: Any) -> Any:
    """Return what an address such as ``s3:///inbox/a.pdf`` or ``s3://storage/inbox/a.pdf`` names, else the value."""
    found = _S3_ADDRESS.fullmatch(value.strip()) if isinstance(value, str) else None
    return {"s3": found[2], **({"storage": found[1]} if found[1] else {})} if found else value


# Where one of several links ends, and the next one begins; what else looks like a separator may belong to a link.
_NEXT_LINK = re.compile(r"(?i)[\s,;|]+(?=(?:https?|s3)://)")


def links(value: Any) -> list[Any]:
    """Return the links or ``s3://`` addresses that stand in one text; any other value is the only one."""
    if not isinstance(value, str):
        return [value]
    return [each.strip().rstrip(",;|").rstrip() for each in _NEXT_LINK.split(value)] if "://" in value else [value]


def decoded(content: str) -> bytes:
    """Return the bytes of base64: as data: address, with line breaks, without padding, or of the kind for addresses.

    Raise ValueError for anything else, and for no bytes at all. A blank within a line is refused too: it was a plus,
    before somebody decoded it as a part of an address.
    """
    text = re.sub(r"(?i)^\s*data:[^,]*;base64,", "", content).strip()
    text = re.sub(r"[\r\n]", "", text).translate(str.maketrans("-_", "+/")).rstrip("=")
    found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    if not found:
        raise ValueError("no bytes")
    return found


def not_base64(content: str) -> str | None:
    """Return what keeps a text from being base64, without quoting it; None where nothing does."""
    try:
        decoded(content)
    except ValueError:
        return "must be base64: the bytes of the file as text"
    return None


def not_a_link(url: str) -> str | None:
    """Return what keeps a text from being a link that Kustomer takes, without quoting it; None where nothing does."""
    if len(links(url)) > 1:
        return "must be one address: give each link as a file of its own"
    if url.startswith("s3://"):
        return "must be an address that begins with https://: give what is in Windmill's object storage as file"
    try:
        parts = urlsplit(url)
        right = parts.scheme == "https" and parts.hostname and "@" not in parts.netloc and parts.port != 0
        right = right and url.isprintable() and " " not in url
    except ValueError:
        right = False
    return None if right else "must be an address that begins with https://, without blanks, user name or password"


# Names as in https://www.rfc-editor.org/rfc/rfc6838#section-4.2; what no header can carry is not in it.
_MEDIA_TYPE = r"^[a-zA-Z0-9!#$&^_.+-]+/[a-zA-Z0-9!#$&^_.+-]+( *;[ -~]*)?$"


class File:
    """The file: one from Windmill's object storage, or its content, or a link to where it stays."""

    file: S3Object = Field(
        "A file in Windmill's object storage, of any size. In a flow, an address such as s3:///inbox/invoice.pdf "
        "will do too.",
        closed=False,
        tidy=s3_object,
        format="resource-s3_object",
        showExpr="!fields.content && !fields.externalUrl",
    )
    content: str = Field(
        "A small file, dropped here. In a flow: its bytes as base64.",
        tidy=unless_blank,
        check=not_base64,
        contentEncoding="base64",
        showExpr="!fields.file?.s3 && !fields.externalUrl",
    )
    externalUrl: str = Field(
        "A link instead of a file: Kustomer shows the address and never fetches what is there.",
        example="https://files.acme.example/invoice.pdf",
        tidy=unless_blank,
        check=not_a_link,
        showExpr="!fields.file?.s3 && !fields.content",
    )
    name: str = Field(
        "File name to show. Left empty, it is taken from the file or the link.",
        example="invoice.pdf",
        max_length=255,
        tidy=unless_blank,
    )
    contentType: str = Field(
        "Media type. Left empty, it is told from the name, else from the first bytes.",
        example="application/pdf",
        pattern=_MEDIA_TYPE,
        customErrorMessage="must be a media type such as application/pdf",
    )
    contentLength: Number = Field(
        "Size in bytes of what is linked, if you know it. Left empty, 0 is shown.",
        example=48213,
        ge=0,
        le=2**53,
        showExpr="fields.externalUrl",
    )

    @staticmethod
    def wrong_together(given: dict[str, Any]) -> str | None:
        """Return what is wrong with where the file is, or None."""
        sources = [name for name in ("file", "content", "externalUrl") if name in given]
        if len(sources) != 1:
            return f"must have one of file, content and externalUrl, not {' and '.join(sources) or 'none'}"
        if "contentLength" in given and "externalUrl" not in given:
            return "must not have a contentLength: it is counted"
        return None


# Office's types, and those of voice messages, are missing from Python's own table, which is all that a worker may have.
_OFFICE = "application/vnd.openxmlformats-officedocument."
_TYPES = {
    ".docx": f"{_OFFICE}wordprocessingml.document",
    ".xlsx": f"{_OFFICE}spreadsheetml.sheet",
    ".pptx": f"{_OFFICE}presentationml.presentation",
    ".gz": "application/gzip",
    ".tgz": "application/gzip",
    ".m4a": "audio/mp4",
    ".ogg": "audio/ogg",
    ".amr": "audio/amr",
    ".md": "text/markdown",
    ".ics": "text/calendar",
}
# How files begin: https://en.wikipedia.org/wiki/List_of_file_signatures
_BEGINNINGS = {
    b"%PDF-": "application/pdf",
    b"\x89PNG\r\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"PK\x03\x04": "application/zip",
}


def content_type(name: str, first: bytes = b"") -> str:
    """Tell the media type of a file by its name, else by its ``first`` bytes."""
    extension = posixpath.splitext(name)[1].lower()
    told = _TYPES.get(extension) or mimetypes.MimeTypes().guess_type(f"x{extension}", strict=False)[0]
    begins = (kind for start, kind in _BEGINNINGS.items() if first.startswith(start))
    return told or next(begins, "application/octet-stream")


class Form:
    """A form with a file at its end, as S3 wants it, read anew for each try and never held whole.

    https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
    """

    def __init__(self, fields: dict[str, str], name: str, kind: str, file: BinaryIO) -> None:
        """Take the fields that go before the file, and the file's name, media type and content."""
        # An empty file leaves the bytes that go before and after its content.
        form, self.content_type = encode_multipart_formdata([*fields.items(), ("file", (name, b"", kind))])
        before, mark, after = form.rpartition(b"\r\n--")
        self._before, self._after, self._file = before, mark + after, file

    def __len__(self) -> int:
        return len(self._before) + self._file.seek(0, 2) + len(self._after)

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        yield self._before
        while chunk := self._file.read(CHUNK_BYTES):
            yield chunk
        yield self._after


ATTACHMENT = RecordKind("attachment", role="org.permission.message.create", duplicates_ok=True)
# What goes to the place that Kustomer names for an attachment's bytes.
FILE = RecordKind(
    "file", done_verb="uploaded", place="there", not_sent_text="This run did not send the file.", duplicates_ok=True
)


def main(auth: kustomer, body: "File") -> dict[str, Any]:
    """Make an attachment of a file or a link, to put into the ``attachments`` of a message.

    Return ``{"_id", "name", "contentType", "contentLength"}``, the length in bytes. Until a message takes it, nobody
    sees it, so running this again is always safe. Raise the KustomerErrors of f.kustomer.shared.errors.
    """
    run = start(auth, ATTACHMENT, body, File)
    return attach(run, run.body)


def attach(run: Run, given: dict[str, Any], path: str = "body.file") -> dict[str, Any]:
    """Make an attachment of the file that is ``given``, as ``main`` does.

    ``run`` is one for ATTACHMENT, ``path`` what an error calls a file that the storage doesn't give.
    """
    if "externalUrl" in given:
        about = described(given, given.get("contentLength", 0))
        made, _ = run.create("/v1/attachments", body={**about, "externalUrl": given["externalUrl"]})
        return {"_id": made["data"]["id"], **about}
    with _stored(given["file"], path) if "file" in given else BytesIO(decoded(given["content"])) as file:
        first, length = file.read(16), file.seek(0, 2)
        about = described(given, length, first)
        made, _ = run.create("/v1/attachments", body=about)
        _upload(run, dig(made, "meta", "upload"), about, file)
    return {"_id": made["data"]["id"], **about}


def described(given: dict[str, Any], length: float, first: bytes = b"") -> dict[str, Any]:
    """Return the ``name``, ``contentType`` and ``contentLength`` of a file, of which ``first`` are the first bytes.

    What is not given is told from where the file is, and from these bytes.
    """
    stored, link = given.get("file", {}), urlsplit(given.get("externalUrl", ""))
    place = stored.get("filename") or stored.get("s3") or unquote(link.path)
    name = given.get("name") or posixpath.basename(place)
    kind = given.get("contentType") or content_type(name, first)
    name = name or link.hostname or f"attachment{mimetypes.guess_extension(kind) or ''}"
    # No form can carry control characters, or halves of surrogate pairs.
    return {"name": re.sub("[\0-\x1f\x7f\ud800-\udfff]", " ", name), "contentType": kind, "contentLength": length}


def _upload(run: Run, place: Any, about: dict[str, Any], file: BinaryIO) -> None:
    """Post a file to where Kustomer says, the ``meta.upload`` of its answer, without the key. Raise KustomerError."""
    url, fields = dig(place, "url"), dig(place, "fields")
    if not _may_upload(url) or not isinstance(fields, dict) or {type(each) for each in fields.values()} != {str}:
        raise run.part(FILE, {}).error(Answer(OddAnswer, why="has no place to upload to"))
    run.hide(*(value for name, value in fields.items() if name.lower().startswith(("policy", "x-amz-"))))
    host = run.part(FILE._replace(server=f"the upload's host, {parse_url(url).host}"), {})
    form = Form(fields, about["name"], about["contentType"], file)
    answer = host.send(Request("POST", url, {"Content-Type": form.content_type}, form, _read_upload))
    if answer.problem:
        raise host.error(answer)
    log(f"{answer.status}, file uploaded, {run.spent}")


def _may_upload(url: Any) -> bool:
    """Tell whether a file may go to this address: over https, or to this machine."""
    try:
        to = parse_url(url)  # as requests reads it
    except (ValueError, TypeError, AttributeError):
        return False
    if not to.host or to.auth:
        return False
    return to.scheme == "https" or (to.scheme == "http" and to.host in ("127.0.0.1", "localhost", "[::1]"))


def _read_upload(status: int, content: bytes) -> tuple[ProblemClass | None, Any]:
    """Read what S3 says, in XML: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""
    if 200 <= status < 300:
        return None if not content.strip() or b"<PostResponse" in content else OddAnswer, None
    problem = classify(status)
    found = dict(re.findall(r"<(Code|Message)>([^<]+)</", content.decode("utf-8", "replace")))
    data = {"errors": [{"code": found.get("Code"), "detail": found.get("Message")}]}
    if found.get("Code") == "RequestTimeout":  # a 400, for a file that came too slowly
        return ServerFailed, data
    return Rejected if problem in (AccessDenied, Conflict) else problem, data

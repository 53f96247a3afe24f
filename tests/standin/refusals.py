"""What Kustomer refuses in a request's body, and the shapes in which it says so."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from tests.standin.faults import Answer

# developer.kustomer.com/kustomer-api-docs/reference/errors says 100 kB; read as 1000 bytes each.
MAX_BODY = 100_000

# Only the first title was captured from Kustomer; the others are ours in its manner.
TITLES = {
    "additionalProperties": "Additional properties not allowed",
    "required": "Missing required property",
    "enum": "No enum match",
    "type": "Invalid type",
    "minLength": "String is too short",
    "maxLength": "String is too long",
    "format": "Format validation failed",
}

_FORMATS = FormatChecker(["date-time"])


@_FORMATS.checks("object-id")
def _is_object_id(value: object) -> bool:
    # No page gives the pattern; every id shown has 24 hex digits.
    return not isinstance(value, str) or re.fullmatch("[0-9a-fA-F]{24}", value) is not None


@_FORMATS.checks("email-relaxed")
def _is_email(value: object) -> bool:
    # The format is named and nowhere described: something on both sides of an @, or in quotes, is our choice.
    return not isinstance(value, str) or re.fullmatch(r"""("([^"\\]|\\.)+"|[^@\s]+)@[^@\s]+""", value) is not None


@_FORMATS.checks("phone-number")
@_FORMATS.checks("whatsapp-number")
def _is_phone_number(value: object) -> bool:
    # Neither are these: digits, spaced as people do, are our choice.
    return not isinstance(value, str) or re.fullmatch(r"\+?[0-9 ().-]*[0-9]", value) is not None


@_FORMATS.checks("external-url", ValueError)
def _is_external_url(value: object) -> bool:
    # developer.kustomer.com/api/core-resources/create-attachment: HTTPS only, and no credentials in the URL.
    if not isinstance(value, str):
        return True
    url = urlsplit(value)
    return url.scheme == "https" and bool(url.hostname) and "@" not in url.netloc


def _schema(operation: str) -> dict[str, Any]:
    """Read Kustomer's published rules for the body of one operation."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name(f"{operation}.schema.json").read_text("utf-8"))
    if "custom" in schema["properties"]:
        # What an organisation defines follows the same rules everywhere, and stands in one place.
        schema["properties"]["custom"] = _CUSTOM
    return schema


def _validator(schema: Mapping[str, Any]) -> Draft202012Validator:
    return Draft202012Validator(schema, format_checker=_FORMATS)


def _bulk_validator(operation: str, *optional: str) -> Draft202012Validator:
    """Give the rules for an array of bodies of one operation, which need not have what is `optional` here.

    The pages of the bulk operations publish the rules of the single one for each item, but for these, and describe
    _clientRef apart from them.
    """
    item = _schema(operation)
    item["properties"]["_clientRef"] = {}
    item["required"] = [name for name in item.get("required", ()) if name not in optional]
    return _validator({"type": "array", "maxItems": 100, "items": item})


_CUSTOM = json.loads(Path(__file__).with_name("create-message.schema.json").read_text("utf-8"))["properties"]["custom"]
# The pages of the same names under developer.kustomer.com/api/core-resources.
MESSAGE = _validator(_schema("create-message"))
CUSTOMER = _validator(_schema("create-customer"))
CONVERSATION = _validator(_schema("create-conversation"))
ATTACHMENT = _validator(_schema("create-attachment"))
BULK = {
    "messages": _bulk_validator("create-message", "direction"),
    "customers": _bulk_validator("create-customer"),
    "conversations": _bulk_validator("create-conversation"),
}


class RefusedError(Exception):
    """A request is refused with an error answer."""

    def __init__(self, answer: Answer) -> None:
        """Hold the answer to give."""
        super().__init__(answer.status)
        self.answer = answer


def refusal(status: int, code: str, message: str) -> RefusedError:
    """Refuse in the shape that most endpoints use (developer.kustomer.com/docs/concepts/errors)."""
    return RefusedError(Answer.of(status, {"errors": [{"code": code, "message": message, "meta": {}}]}))


def refusal_at(status: int, *entries: Mapping[str, Any]) -> RefusedError:
    """Refuse in the JSON:API shape of the same page, which captured 400 and 404 answers have."""
    return RefusedError(Answer.of(status, {"errors": [{"status": status, **entry} for entry in entries]}))


def not_found(parameter: str) -> RefusedError:
    """Refuse a look-up by `parameter`, as captured for customers."""
    return refusal_at(404, {"source": {"parameter": parameter}, "code": "notfound", "title": "Not Found"})


def conflict(parameters: Iterable[str]) -> RefusedError:
    """Refuse what is taken. The older errors page has 409 for conflicts; the shape is our choice."""
    return refusal_at(409, *({"source": {"parameter": p}, "code": "conflict", "title": "Conflict"} for p in parameters))


def parse(headers: Mapping[str, str], body: bytes, kind: type = dict, limit: int = MAX_BODY) -> Any:
    """Read the body as JSON, strictly: an object, or a list."""
    if len(body) > limit:
        raise refusal(413, "payload_too_large", f"Request body exceeds {limit // 1000} kB")
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise refusal(400, "bad_request", "Content-Type must be application/json")
    try:
        given = json.loads(body.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise refusal(400, "bad_request", "Invalid JSON") from error
    if not isinstance(given, kind):
        raise refusal(400, "bad_request", f"The body must be a JSON {'array' if kind is list else 'object'}")
    return given


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def validate(validator: Draft202012Validator, given: Any) -> None:
    """Refuse what violates the schema, with an entry for each violation."""
    entries = [entry for error in validator.iter_errors(given) for entry in _violations(error)]
    if entries:
        # Each missing property comes as an error of its own, and every such error names them all.
        raise refusal_at(400, *{json.dumps(entry): entry for entry in entries}.values())


def _violations(error: ValidationError) -> Iterator[dict[str, Any]]:
    """Give an entry for each name at fault, as captured from Kustomer: `detail` is the schema's path."""
    schema = cast("dict[str, Any]", error.schema)
    given = cast("dict[str, Any]", error.instance)
    if error.validator == "required":
        names = [name for name in schema["required"] if name not in given]
    elif error.validator == "additionalProperties":
        names = [name for name in given if name not in schema["properties"]]
    elif error.validator == "dependentRequired":
        names = [name for name in schema["dependentRequired"] if name in given]
    else:
        names = ["/".join(str(step) for step in error.absolute_path)]
    for name in names:
        yield {
            "source": {"parameter": name},
            "code": "badparam",
            "title": TITLES.get(str(error.validator), "Invalid value"),
            "detail": "/" + "/".join(str(step) for step in error.absolute_schema_path),
        }

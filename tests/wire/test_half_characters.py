"""What PostgreSQL refuses never gets into a result or an error, however it is written: U+FFFD stands in its place."""

import base64
import json
import re
from typing import Any

import pytest

from f.kustomer import check_connection
from f.kustomer.create_message import main
from f.kustomer.shared.errors import KustomerError
from tests.conftest import Body, Step
from tests.standin.adversary import Adversary, Stage, answer, read, send
from tests.standin.kustomer import Fault, Kustomer

# As bytes within a JSON string.
HALVES = {
    "first half in UTF-8": b"\xed\xa0\xbd",
    "second half in UTF-8": b"\xed\xb8\x80",
    "a pair, each half in UTF-8": b"\xed\xa0\xbd\xed\xb8\x80",
    "first half escaped": rb"\ud83d",
    "first half escaped in capitals": rb"\uD83D",
    "second half escaped": rb"\ude00",
    "halves the wrong way round": rb"\ude00\ud83d",
    "two first halves": rb"\ud83d\ud83d",
    "one half in UTF-8, one escaped": b"\xed\xa0\xbd" + rb"\ude00",
    "one half escaped, one in UTF-8": rb"\ud83d" + b"\xed\xb8\x80",
    "NUL escaped": rb"\u0000",
    "a byte of no character": b"\xff",
    "a byte of Latin-1": b"\xe9",
    "two bytes of four": b"\xf0\x9f",
    "a slash in two bytes": b"\xc0\xaf",
    "beyond Unicode": b"\xf4\x90\x80\x80",
}
WHOLE = {
    "UTF-8": ("\U0001f600".encode(), "\U0001f600"),
    "a pair escaped": (rb"\ud83d\ude00", "\U0001f600"),
    "a backslash escaped": (rb"\\ud83d", r"\ud83d"),
    "a backslash and a half": (rb"\\\\ud83d", r"\\ud83d"),
    "not NUL": (rb"\\u0000", r"\u0000"),
    "U+FFFD": ("\ufffd".encode(), "\ufffd"),
    "the last before the halves": (rb"\ud7ff", "\ud7ff"),
    "the first after them": (rb"\ue000", "\ue000"),
}


def replaced(text: Any) -> bool:
    """Whether there is but a replacement between the two letters."""
    return re.fullmatch("a\ufffd+b", text) is not None


def saying(adversary: Adversary, status: str, body: bytes) -> Stage:
    """A stage that answers this to every request."""
    return adversary.play([read(), send(answer(status, body, "Connection: close"))])


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("extra", [{}, {"externalId": "order-1042"}], ids=["made", "found"])
def test_half_a_character_is_replaced_in_a_result(
    adversary: Adversary, auth: Body, message: Body, name: str, extra: Body
) -> None:
    """The message is recorded, and the job must not fail."""
    text = b'"a%bb"' % HALVES[name]
    said = b'{"data": {"id": "1", "attributes": {"preview": %b, "meta": {%b: [%b]}}}}' % (text, text, text)
    given: Any = auth | {"baseUrl": saying(adversary, "200 OK", said).url}
    result = main(given, message | extra)  # type: ignore[arg-type]
    json.dumps(result, ensure_ascii=False).encode()
    attributes: Any = result["data"]["attributes"]
    assert replaced(attributes["preview"])
    ((key, values),) = attributes["meta"].items()
    assert replaced(key)
    assert replaced(values[0])


@pytest.mark.parametrize("name", WHOLE)
def test_whole_characters_stay_as_they_are(adversary: Adversary, auth: Body, message: Body, name: str) -> None:
    """Also beside one that is not."""
    written, text = WHOLE[name]
    said = b'{"data": {"id": "1", "text": "%b", "other": "\xff"}}' % written
    given: Any = auth | {"baseUrl": saying(adversary, "201 Created", said).url}
    assert main(given, message)["data"]["text"] == text  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HALVES)
def test_half_a_character_is_replaced_in_an_error(kustomer: Kustomer, run: Step, message: Body, name: str) -> None:
    """Its reasons are told all the same."""
    said = b'{"errors": [{"code": "a%bb", "title": "Wrong"}]}' % HALVES[name]
    kustomer.fault(Fault.answer(400, said))
    error = run(message).failed
    assert error.status == 400
    assert "Wrong" in str(error)
    (reason,) = error.errors
    json.dumps([str(error), vars(error)], ensure_ascii=False).encode()
    assert reason["code"] is not None
    assert re.fullmatch("a[\ufffd ]+b", reason["code"])


# What a key says of itself

TOKEN = b'{"data": {"type": "token", "id": "current", "attributes": {"name": "The shop\'s"}}}'


def key(payload: bytes) -> str:
    """A JSON Web Token with this payload."""
    return f"e30.{base64.urlsafe_b64encode(payload).decode().rstrip('=')}.signature-of-the-key"


def checked(adversary: Adversary, payload: bytes) -> Body:
    """What is told of such a key."""
    given: Any = {"apiKey": key(payload), "baseUrl": saying(adversary, "200 OK", TOKEN).url}
    return check_connection.main(given)


@pytest.mark.parametrize("name", HALVES)
def test_half_a_character_is_replaced_in_what_a_key_says(adversary: Adversary, name: str) -> None:
    """It is decoded from base64, not from an answer."""
    text = b'"a%bb"' % HALVES[name]
    result = checked(adversary, b'{"orgName": %b, "org": %b, "exp": 1800000000}' % (text, text))
    json.dumps(result, ensure_ascii=False).encode()
    assert replaced(result["organisation"]["name"])
    assert replaced(result["organisation"]["id"])
    assert result["expires"] == "2027-01-15T08:00:00Z"


@pytest.mark.parametrize("payload", [b'{"a":' + b"[" * 60_000, b"[" * 60_000 + b"]" * 60_000], ids=["open", "closed"])
def test_a_key_that_nests_deeply_says_nothing(adversary: Adversary, payload: bytes) -> None:
    """What Kustomer says of it is told all the same."""
    try:
        result = checked(adversary, payload)
    except KustomerError as error:  # pragma: no cover
        pytest.fail(repr(error)[:200])
    assert (result["name"], result["organisation"], result["expires"]) == (
        "The shop's",
        {"id": None, "name": None},
        None,
    )

"""The same request and the same answer as the Hub's script, for a message that is valid."""

import json
from typing import Any

import pytest

from tests.bench import FULL_BODY
from tests.conftest import Body, Step
from tests.naive_create_message import main as naive
from tests.standin.kustomer import Fault, Kustomer


def test_request_is_the_one_of_the_hub_script(kustomer: Kustomer, run: Step, auth: Body, message: Body) -> None:
    """Method, path, key, media type and JSON are those that a plain port of the Hub's script sends."""
    naive(auth, message)
    run(message)
    theirs, ours = kustomer.requests
    assert (ours.method, ours.path) == (theirs.method, theirs.path) == ("POST", "/v1/messages")
    assert json.loads(ours.body) == json.loads(theirs.body) == message
    for name in ("Authorization", "Content-Type", "Content-Length"):
        assert name in ours.headers
    assert ours.headers["Authorization"] == theirs.headers["Authorization"] == f"Bearer {auth['apiKey']}"
    assert ours.headers["Content-Type"] == theirs.headers["Content-Type"] == "application/json"


def test_answer_is_returned_as_it_came(kustomer: Kustomer, create_message: Any, auth: Body, message: Body) -> None:
    """Nothing is added to the answer, left out or renamed, whatever else it holds."""
    answer = {"data": {"id": "65a1b2c3d4e5f60718293a4f", "odd": [1, None, {"ü": 2.5}]}, "meta": {"x": ""}}
    kustomer.fault(Fault.answer(201, answer))
    assert create_message.main(auth, message) == answer


@pytest.mark.parametrize("odd", [[1], "text", 5, True, None])
def test_found_message_is_returned_whatever_its_shape(
    kustomer: Kustomer, create_message: Any, auth: Body, message: Body, odd: Any
) -> None:
    """An id is enough: what a look-up found is never lost to an odd answer."""
    found = {"data": {"id": "65a1b2c3d4e5f60718293a4f", "attributes": odd, "relationships": odd}}
    kustomer.fault(Fault.answer(200, found, on="GET"))
    assert create_message.main(auth, {**message, "externalId": "acme-1"}) == found


def test_every_published_field_is_sent_as_given(kustomer: Kustomer, run: Step, auth: Body) -> None:
    """A body with all 32 fields arrives whole; the stand-in takes it by its own copy of the published rules."""
    assert len(FULL_BODY) == 32
    posted = run(FULL_BODY, apiKey=kustomer.keys["admin"])
    assert posted.stored == 1
    assert json.loads(kustomer.posts[0].body) == FULL_BODY


@pytest.mark.parametrize(
    "text",
    ["Grüße, 世界", "\U0001f600" * 100, "line\nline\ttab", 'quote " and \\ backslash', "half \ud83d a pair", "​"],
)
def test_any_text_arrives_as_it_is(kustomer: Kustomer, run: Step, message: Body, text: str) -> None:
    """Unicode of every kind survives the way there."""
    run({**message, "preview": text})
    assert json.loads(kustomer.posts[0].body)["preview"] == text


def test_text_counts_in_utf8_and_not_in_escapes(kustomer: Kustomer, run: Step, message: Body) -> None:
    """10,240 emoji are 41 kB of UTF-8: they fit, though as ASCII escapes they would pass 100 kB."""
    assert run({**message, "preview": "\U0001f600" * 10_240}).stored == 1


@pytest.mark.parametrize("bad", ["\0", "\ud83d"])
def test_what_windmill_can_not_store_is_replaced_in_an_answer(run: Step, message: Body, bad: str) -> None:
    """Its database takes neither NUL nor half a character, and would fail a job whose message is recorded."""
    answer = run({**message, "preview": f"a{bad}b\U0001f600", "meta": {bad: [bad, r"\u0000"]}}).answer
    assert answer is not None
    attributes: dict[str, Any] = answer["data"]["attributes"]
    assert attributes["preview"] == "a\ufffdb\U0001f600"
    assert attributes["meta"] == {"\ufffd": ["\ufffd", r"\u0000"]}


def test_step_leaves_its_arguments_alone(run: Step, message: Body) -> None:
    """A flow may use the same body again."""
    given = {**message, "subject": "", "meta": {"a": []}, "location": {"name": None}}
    before = json.dumps(given)
    run(given)
    assert json.dumps(given) == before

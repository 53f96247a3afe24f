"""What Windmill's form submits for fields that nobody touched counts as not given."""

import copy
import json
from typing import Any

import pytest

from f.kustomer.create_message import Message
from f.kustomer.shared.errors import InvalidInput
from tests.conftest import Body, Step
from tests.standin.kustomer import Kustomer

ID = "65a1b2c3d4e5f60718293a4b"
FILE = {"_id": ID, "name": "invoice.pdf", "contentType": "application/pdf", "contentLength": 48213}
# All that counts as empty elsewhere, where it is data.
DATA: Body = {
    "text": "",
    "none": None,
    "list": [],
    "object": {},
    "deep": [{"text": ""}, None, [[]]],
    "zero": 0,
    "no": False,
}


def sent(kustomer: Kustomer) -> Any:
    """The body of the last message that was sent, as it came over the wire."""
    return json.loads(kustomer.posts[-1].body)


@pytest.mark.parametrize("untouched", [None, "", [], {}], ids=repr)
def test_a_field_that_nobody_touched_is_not_sent(
    run: Step, message: Body, kustomer: Kustomer, untouched: object
) -> None:
    """Every optional field of the form may be submitted empty, in each spelling of empty."""
    assert run(dict.fromkeys(Message.__annotations__, untouched) | message).id
    assert sent(kustomer) == message


@pytest.mark.parametrize(
    "untouched",
    [
        {"reference": {"message": "", "type": None}},
        {"reference": {"message": None}},
        {"sentiment": {"polarity": None, "confidence": None}},
        {"queue": {"id": "", "external": ""}},
        {"location": {"name": "", "latitude": None, "more": {"lines": [{"text": ""}, None, [[]]]}}},
        {"error": {"status": None, "code": "", "source": {}, "meta": {}, "links": {}}},
        {"error": {"source": None, "links": ""}},
        {"attachments": [{}]},
        {"attachments": [{"_id": "", "name": "", "contentType": None, "contentLength": None}, "", None, []]},
        {"shortcuts": [""], "kbArticles": [None, "", {}, [[], ""]]},
        {"meta": {}, "custom": {}},
    ],
    ids=str,
)
def test_an_object_or_list_of_nothing_but_empty_fields_is_not_sent(
    run: Step, message: Body, kustomer: Kustomer, untouched: Body
) -> None:
    """What becomes empty at any depth goes too, before anything could be missing in it."""
    assert run(message | untouched).id
    assert sent(kustomer) == message


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ({"location": {"name": "", "cityName": "Berlin"}}, {"location": {"cityName": "Berlin"}}),
        ({"location": {"floor": {"note": "", "level": 3}}}, {"location": {"floor": {"level": 3}}}),
        ({"location": {"tags": ["", "a", [], None, {}]}}, {"location": {"tags": ["a"]}}),
        ({"error": {"code": "550", "title": "", "source": {}}}, {"error": {"code": "550"}}),
        ({"attachments": [{}, {**FILE, "sourceId": ""}]}, {"attachments": [FILE]}),
        ({"attachments": ["", ID, None]}, {"attachments": [ID]}),
        ({"shortcuts": ["", ID, None]}, {"shortcuts": [ID]}),
        ({"queue": {"id": "", "external": "amazon-connect"}}, {"queue": {"external": "amazon-connect"}}),
    ],
    ids=str,
)
def test_what_is_filled_in_beside_an_empty_field_is_sent(
    run: Step, message: Body, kustomer: Kustomer, given: Body, left: Body
) -> None:
    """Only the empty parts of an object or a list go."""
    assert run(message | given).id
    assert sent(kustomer) == message | left


@pytest.mark.parametrize(
    "free",
    [{"meta": DATA}, {"custom": DATA}, {"error": {"source": DATA}}, {"error": {"meta": DATA}}]
    + [{"error": {"links": {name: value}}} for name, value in DATA.items()],
    ids=str,
)
def test_nothing_is_dropped_inside_a_free_form_object(run: Step, message: Body, kustomer: Kustomer, free: Body) -> None:
    """Its insides are data: in custom, for one, null clears an attribute."""
    assert run(message | free).id
    assert sent(kustomer) == message | free


@pytest.mark.parametrize(
    "answered",
    [
        {"auto": False},
        {"size": 0},
        {"size": 0.0},
        {"error": {"status": 0}},
        {"location": {"latitude": 0, "longitude": -0.0}},
        {"location": {"indoors": False, "floors": [0, False]}},
        {"sentiment": {"polarity": 0, "confidence": 0}},
        {"attachments": [{**FILE, "contentLength": 0}]},
    ],
    ids=str,
)
def test_false_and_zero_are_answers(run: Step, message: Body, kustomer: Kustomer, answered: Body) -> None:
    """A switch that is off and a number that is 0 are sent as they are."""
    assert run(message | answered).id
    assert sent(kustomer) == message | answered


@pytest.mark.parametrize("text", [" ", "\n", "0", "false", "null", "[]", "{}", "\u200b"], ids=ascii)
def test_text_that_only_looks_empty_is_sent(run: Step, message: Body, kustomer: Kustomer, text: str) -> None:
    """A blank or the word null in a text is somebody's text."""
    assert run(message | {"preview": text}).id
    assert sent(kustomer) == message | {"preview": text}


@pytest.mark.parametrize("empty", [None, "", [], {}, {"old": {"field": ""}}, [[""]]], ids=repr)
def test_an_unknown_field_without_content_is_no_problem(
    run: Step, message: Body, kustomer: Kustomer, empty: object
) -> None:
    """Dropping comes before checking: a form of an older version submits fields that are gone."""
    assert run(message | {"oldField": empty, "error": {"oldField": empty}}).id
    assert sent(kustomer) == message


@pytest.mark.parametrize("empty", [None, "", [], {}, [""], {"a": None}], ids=repr)
@pytest.mark.parametrize("name", ["channel", "direction", "app"])
def test_a_required_field_left_empty_is_missing(
    run: Step, message: Body, kustomer: Kustomer, name: str, empty: object
) -> None:
    """An empty required field is told as missing, not as one of a wrong type."""
    error = run(message | {name: empty}).failed
    assert isinstance(error, InvalidInput)
    assert [(each["path"], each["title"]) for each in error.errors] == [(f"body.{name}", "is missing")]
    assert kustomer.requests == []


@pytest.mark.parametrize(
    ("half", "missing"),
    [
        ({"reference": {"message": ID, "type": ""}}, ["body.reference.type"]),
        ({"sentiment": {"polarity": 0, "confidence": None}}, ["body.sentiment.confidence"]),
        (
            {"attachments": [{}, {"_id": ID, "name": "", "contentType": "text/plain"}]},
            ["body.attachments[1].contentLength", "body.attachments[1].name"],
        ),
    ],
    ids=str,
)
def test_a_half_filled_object_lacks_its_required_fields(
    run: Step, message: Body, half: Body, missing: list[str]
) -> None:
    """Once one field is filled in, those that belong to it are missing, at the places of the form."""
    error = run(message | half).failed
    assert isinstance(error, InvalidInput)
    assert sorted(str(each["path"]) for each in error.errors) == missing


def test_a_form_submitted_untouched_names_the_three_required_fields(run: Step) -> None:
    """Nothing else of an empty form is a problem."""
    error = run({**dict.fromkeys(Message.__annotations__, ""), "error": {"meta": {}}, "attachments": [{}]}).failed
    assert isinstance(error, InvalidInput)
    assert sorted(str(each["path"]) for each in error.errors) == ["body.app", "body.channel", "body.direction"]


@pytest.mark.parametrize("untouched", [None, "", [], {}], ids=repr)
def test_a_resource_with_untouched_fields_will_do(run: Step, message: Body, auth: Body, untouched: object) -> None:
    """The resource's form submits empty fields as well."""
    assert run(message, orgName=untouched).id
    error = run(message, apiKey=untouched, baseUrl=untouched).failed
    assert [(each["path"], each["title"]) for each in error.errors] == [("auth.apiKey", "is missing")]


def test_the_body_that_was_given_is_left_as_it_was(run: Step, message: Body) -> None:
    """A step's input is the flow's: dropping makes a copy."""
    body = message | {"subject": "", "location": {"name": "", "cityName": "Berlin"}, "shortcuts": ["", ID]}
    before = copy.deepcopy(body)
    assert run(body).id
    assert body == before

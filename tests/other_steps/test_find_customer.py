"""A customer is found by any of three identifiers, however it is spelled, and made with all that is given."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest

from f.kustomer.find_customer import Customer, main
from tests.conftest import Body, spilled
from tests.other_steps.conftest import Find, Finder, all_look_first, at_once, problems
from tests.stand_ins.test_kustomer import create
from tests.standin.kustomer import Fault, Kustomer

GRACE: Body = {"email": "grace@example.com", "create": True}
IDENTIFIERS = {"externalId": "shop/77", "email": "grace@example.com", "phone": "+4930765432"}
NEEDED = "must have an email, a phone or an externalId"

step: Callable[[Any, Any], Body] = main

CUSTOMER = Finder(
    record="customer",
    step=step,
    shape=Customer,
    key={"email": "grace@example.com"},
    make={"create": True},
    sent={"emails": [{"email": "grace@example.com"}]},
    others={**IDENTIFIERS, "name": "Somebody Else"},
    secret={
        "email": " Grace.Hopper@Example.com",
        "phone": "+49 (0)30 765-432",
        "externalId": "shop-grace-77",
        "name": 'Grace "Amazing" Höpper\nRear Admiral',
        "create": True,
    },
    hidden=[
        "Grace.Hopper@Example.com",
        "+49 (0)30 765-432",
        "shop-grace-77",
        'Grace "Amazing" Höpper\nRear Admiral',
        # As they are looked for.
        "grace.hopper@example.com",
        "+4930765432",
        "4930765432",
    ],
    needed=("body", NEEDED),
    wrong={"email": "grace", "phone": "1", "externalId": 7, "create": "on", "name": [1], "e-mail": "x"},
    mistaken={
        "email": ("mail", "Email", "e-mail", "emailAddress", "email_address", "from", "emails"),
        "phone": ("phoneNumber", "phone_number", "phones"),
        "externalId": ("external_id", "externalID", "id", "customerId"),
        "name": ("fullName", "names"),
    },
    conflict="look in Kustomer for who has this",
)


@pytest.fixture
def find(kustomer: Kustomer, auth: Body) -> Find:
    """The step."""
    return Find(CUSTOMER, kustomer, auth)


# Finding


@pytest.mark.parametrize("create", [False, True], ids=["create off", "create on"])
@pytest.mark.parametrize(("name", "value"), IDENTIFIERS.items())
def test_any_one_identifier_finds_a_customer_in_one_request(find: Find, name: str, value: str, create: bool) -> None:
    """Whether or not one who isn't there would be made."""
    there = find({name: value, "create": True}).found["id"]
    again = find({name: value, "create": create})
    assert again.found == {"id": there, "created": False}
    assert (again.asked, again.stored) == ([find.look_by(name, value)], 0)


@pytest.mark.parametrize(
    ("there", "first"),
    [
        (("externalId", "email", "phone"), "externalId"),
        (("externalId", "email"), "externalId"),
        (("externalId", "phone"), "externalId"),
        (("email", "phone"), "email"),
        (("externalId",), "externalId"),
        (("email",), "email"),
        (("phone",), "phone"),
    ],
    ids=str,
)
@pytest.mark.parametrize("create", [False, True], ids=["create off", "create on"])
def test_of_several_customers_the_first_by_external_id_email_and_phone_is_taken(
    find: Find, there: Sequence[str], first: str, create: bool
) -> None:
    """In this order, whatever the order in the body, and no further than the first who is there."""
    ids = {name: find({name: IDENTIFIERS[name], "create": True}).found["id"] for name in there}
    found = find(dict(reversed(IDENTIFIERS.items())) | {"create": create})
    assert found.found == {"id": ids[first], "created": False}
    names = list(IDENTIFIERS)
    assert found.asked == [find.look_by(name, IDENTIFIERS[name]) for name in names[: names.index(first) + 1]]


@pytest.mark.parametrize("names", [["externalId"], ["email"], ["phone"], [*IDENTIFIERS]], ids=str)
def test_each_identifier_is_looked_for_once(find: Find, names: list[str]) -> None:
    """Where nobody is there and create is off, nothing is made."""
    found = find({name: IDENTIFIERS[name] for name in names})
    assert found.found == find.nobody
    assert found.asked == [find.look_by(name, IDENTIFIERS[name]) for name in names]


# Spelling

PHONES = {
    "+4930765432": [
        "+49 30 765432",
        " +49 30 765432\n",
        "0049 30 765432",
        "\t0049-30-765432",
        "tel:+4930765432",
        "whatsapp:+49 30 765432",
        "+49 (0)30 765432",
        "+49(0)30/765432",
        "0049 (0) 30 - 765 432",
        "(+49) 30 765432",
        "(+49)(0)30 765432",
        "(0049) 30 765432",
        "+49.30.765.432",
        "+49\N{NO-BREAK SPACE}30\N{NARROW NO-BREAK SPACE}765432",
        "+49 30 765\N{EN DASH}432",
        "+49\N{NON-BREAKING HYPHEN}30\N{NON-BREAKING HYPHEN}765432",
    ],
    "12345": ["1-23-45"],
    "+123456789012345": ["+1234 5678 9012 345"],
    "+15550100100": ["+1 (555) 010-0100", "001 555 010 0100"],
    "030765432": ["030 765432", "(030) 76 54 32", "030/765-432", "(0)30 765432"],
}
SPELLINGS = {
    "email": {
        "grace@example.com": [
            "Grace@Example.COM",
            "GRACE@EXAMPLE.COM",
            " grace@example.com\n",
            "\tgrace@example.com\N{NO-BREAK SPACE}",
        ],
        "grüße@x.example": ["GRÜßE@X.example"],
        '"grace hopper"@x.example': ['"Grace Hopper"@x.example'],
    },
    "phone": PHONES,
    "externalId": {"<g1@x.example>": [" <g1@x.example>\r\n", "\r\n\t<g1@x.example>"], "a b": ["a\r\n b"]},
}


@pytest.mark.parametrize(
    ("name", "plain", "spelling"),
    [
        (name, plain, spelling)
        for name, each in SPELLINGS.items()
        for plain, spellings in each.items()
        for spelling in spellings
    ],
    ids=ascii,
)
def test_one_address_or_number_is_one_customer_however_it_is_spelled(
    find: Find, name: str, plain: str, spelling: str
) -> None:
    """What is looked for and what is stored are spelled alike."""
    made = find({name: spelling, "create": True})
    assert made.asked == [find.look_by(name, plain), find.post]
    assert find.posted == [{name: plain} if name == "externalId" else {f"{name}s": [{name: plain}]}]
    assert find({name: plain}).found == find({name: spelling}).found == {"id": made.found["id"], "created": False}


BOTH = ("ada@xn--bcher-kva.example", "ada@bücher.example")


@pytest.mark.parametrize("email", ["Ada@BÜCHER.example", "ada@bu\N{COMBINING DIAERESIS}cher.example"], ids=ascii)
def test_an_address_with_two_spellings_is_looked_for_in_both(find: Find, email: str) -> None:
    """A new customer gets the one in ASCII."""
    made = find({"email": email, "create": True})
    assert made.asked == [*[find.look_by("email", each) for each in BOTH], find.post]
    assert find.posted == [{"emails": [{"email": "ada@xn--bcher-kva.example"}]}]
    assert find({"email": email}).found == {"id": made.found["id"], "created": False}


@pytest.mark.parametrize("email", ["ada@bücher.example", "ada@xn--bcher-kva.example"], ids=ascii)
def test_a_customer_who_was_stored_with_the_other_spelling_is_found(kustomer: Kustomer, find: Find, email: str) -> None:
    """As somebody else has made them, or a step before there was one spelling."""
    there = create(kustomer, "customers", emails=[{"email": "ada@bücher.example"}]).json()["data"]["id"]
    found = find({"email": email, "create": True})
    assert found.found == {"id": there, "created": False}
    assert found.asked == [find.look_by("email", each) for each in BOTH]


@pytest.mark.parametrize(
    ("name", "value", "encoded"),
    [
        ("email", "a+b@x.example", "a%2Bb%40x.example"),
        ("email", "a/b?c#d%20&e=f@x.example", "a%2Fb%3Fc%23d%2520%26e%3Df%40x.example"),
        ("email", "jö@mueller.example", "j%C3%B6%40mueller.example"),
        ("email", "\N{PACKAGE}@x.example", "%F0%9F%93%A6%40x.example"),
        ("phone", "+4930765432", "%2B4930765432"),
    ],
    ids=ascii,
)
def test_a_value_is_one_percent_encoded_segment_of_the_address(find: Find, name: str, value: str, encoded: str) -> None:
    """So that whoever is made under it is found under it."""
    made = find({name: value, "create": True})
    assert made.asked == [f"GET /v1/customers/{name}={encoded}", find.post]
    assert find({name: value}).found == {"id": made.found["id"], "created": False}


# Making one


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        ({"email": "grace@example.com"}, {"emails": [{"email": "grace@example.com"}]}),
        ({"phone": "+4930765432"}, {"phones": [{"phone": "+4930765432"}]}),
        ({"externalId": "shop/77"}, {"externalId": "shop/77"}),
        (
            {"externalId": "shop/77", "name": "Gräce \N{PACKAGE}"},
            {"externalId": "shop/77", "name": "Gräce \N{PACKAGE}"},
        ),
        (
            {**IDENTIFIERS, "name": " Grace Hopper "},
            {
                "name": " Grace Hopper ",
                "externalId": "shop/77",
                "emails": [{"email": "grace@example.com"}],
                "phones": [{"phone": "+4930765432"}],
            },
        ),
    ],
    ids=str,
)
def test_all_that_identifies_a_new_customer_is_posted(find: Find, body: Body, sent: Body) -> None:
    """In the shape that Kustomer documents, after one look-up for each identifier."""
    made = find(body | {"create": True})
    assert made.found == find.only(True)
    assert made.asked == [*[find.look_by(name, IDENTIFIERS[name]) for name in IDENTIFIERS if name in body], find.post]
    assert find.posted == [sent]


@pytest.mark.parametrize("half", ["\ud83d", "\ud83d Grace"])
def test_a_name_may_be_any_text(find: Find, half: str) -> None:
    """Nothing looks for it, so that a broken emoji in it is no reason to make nobody."""
    assert find(GRACE | {"name": half}).found["created"]


@pytest.mark.parametrize("together", [all_look_first, at_once])
def test_runs_that_share_one_identifier_make_one_customer(
    kustomer: Kustomer, find: Find, together: Callable[..., list[Body]]
) -> None:
    """Also where some of them know more of the customer than others."""
    everything = {**IDENTIFIERS, "name": "Grace", "create": True}
    both = [partial(step, find.auth, GRACE), partial(step, find.auth, everything)]
    runs = all_look_first(kustomer, *both) if together is all_look_first else at_once(*both * 2)
    assert {each["id"] for each in runs} == {find.only(True)["id"]}
    assert [each["created"] for each in runs].count(True) == 1


# What is refused without being sent

NO_EMAIL = "must be an e-mail address such as ada@example.com, without a name"
NO_PHONE = "must be a phone number such as +49 30 1234567"
NO_COUNTRY = "must have a country's code that exists, and a number behind it, as in +49 30 1234567"
NOT_POSSIBLE = "begins with 00 and is no possible number abroad: give it as in +49 30 1234567"
UNSEEN = "has an invisible or broken character in it: type it anew"


@pytest.mark.parametrize(
    ("body", "path", "problem"),
    [
        ({}, "body", NEEDED),
        ({"create": True, "name": "Grace Hopper"}, "body", NEEDED),
        ({"email": " ", "name": "x"}, "body.email", NO_EMAIL),
        *[
            ({"email": email}, "body.email", NO_EMAIL)
            for email in (
                "grace",
                "Grace Hopper <grace@example.com>",
                "<grace@example.com>",
                "grace@example.com, ada@example.com",
                "grace @example.com",
                "a@b@c",
                "@example.com",
                "grace@",
            )
        ],
        *[
            ({"email": email}, "body.email", UNSEEN)
            for email in (
                "grace@example.com\N{ZERO WIDTH SPACE}",
                "\N{LEFT-TO-RIGHT EMBEDDING}grace@example.com\N{POP DIRECTIONAL FORMATTING}",
                "grace\0@example.com",
                "grace\ud800@example.com",
            )
        ],
        ({"email": ["grace@example.com"]}, "body.email", "must be text, not a list"),
        *[
            ({"phone": phone}, "body.phone", NO_PHONE)
            for phone in (
                "grace",
                "1234",
                "+1234",
                "+1234567890123456",
                "+49 30 765432 ext. 5",
                "+49 30 765432, 030 765432",
                "030 765432 +49 30 765432",
                "++49 30 765432",
                "\N{ARABIC-INDIC DIGIT ONE}2345678",
                "+49 30 765432\ud800",
            )
        ],
        ({"phone": "+999 30 765432"}, "body.phone", NO_COUNTRY),
        ({"phone": "0049 30"}, "body.phone", NO_PHONE),
        ({"phone": "0049 301"}, "body.phone", NOT_POSSIBLE),
        ({"phone": 4930765432}, "body.phone", "must be text, not a number"),
    ],
    ids=lambda value: ascii(value)[:60],
)
def test_what_kustomer_could_not_take_is_told_without_asking(find: Find, body: object, path: str, problem: str) -> None:
    """One path and what is wrong there, without quoting it."""
    assert problems(find(body)) == [(path, problem)]


# What stays inside


@pytest.mark.parametrize("given", [{"email": "a+b@x.example"}, {"phone": "+49 30 765432"}], ids=str)
def test_an_address_of_a_look_up_is_not_shown(kustomer: Kustomer, find: Find, given: Body) -> None:
    """Kustomer, or a proxy, may quote what it was asked for, in which e-mail and phone stand percent-encoded."""
    path = find(given).asked[0].split()[1]
    kustomer.fault(Fault.answer(400, {"errors": [{"message": f"Cannot GET {path}"}]}, on="GET"))
    assert spilled(find(given).failed, path.partition("=")[2]) == []


def test_what_is_wrong_is_not_quoted(find: Find) -> None:
    """A value, or a name that looks like one, stays inside."""
    error = find({"email": "Grace <grace@example.com>", "phone": "030 GRACE", "grace@example.com": "x"}).failed
    assert len(error.errors) == 3
    assert spilled(error, "grace", "Grace", "GRACE") == []

"""Find customer.

Finds a customer in Kustomer by e-mail, phone or externalId, and on request makes one who is not there. Calls are those
of https://developer.kustomer.com/api/core-resources/create-customer and its neighbours.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

from f.kustomer.client import dig, start
from f.kustomer.errors import RecordKind
from f.kustomer.inputs import ExternalId, Field, kustomer


def _tidy_phone(phone: str) -> str:
    """Leaves the digits, and the plus of an international number: one phone, one spelling."""
    # Copied numbers come with dashes of all kinds, and marks that nobody sees.
    bare = re.sub(r"[\s./\u2010-\u2015\u2212\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069-]|^tel:", "", phone)
    # The 0 of +49 (0)30 isn't dialled from abroad; that of (0)30 is.
    return re.sub("^00", "+", re.sub(r"(?<!^)\(0\)|[()]", "", bare))


def _not_a_phone(phone: str) -> str | None:
    # E.164 allows 15 digits; a shorter number than 5 is a service's, not somebody's.
    known = re.fullmatch(r"\+?[0-9]{5,15}", _tidy_phone(phone))
    return None if known else "must be a phone number such as +49 30 1234567"


def _unseen(email: str) -> str | None:
    """Finds what copying brings along: with it the address would be another one."""
    return None if email.strip().isprintable() else "has an invisible or broken character in it: type it anew"


# How each identifier is spelled where it is looked for, and in which order.
IDENTIFIERS: dict[str, Callable[[str], str]] = {
    "externalId": str,
    "email": lambda email: email.strip().lower(),
    "phone": _tidy_phone,
}


class Customer(TypedDict, total=False):
    """Who the customer is. One of email, phone and externalId is needed; each that is given is looked for."""

    email: Annotated[
        str,
        Field(
            "E-mail address.",
            example="ada@example.com",
            pattern=r"""^\s*[^@\s<>:;,"]+@[^@\s<>:;,"]*[^@\s<>:;,".]\s*$""",
            customErrorMessage="must be an e-mail address such as ada@example.com, without a name",
            check=_unseen,
            mistaken_names=("mail", "emailaddress", "from", "emails"),
        ),
    ]
    phone: Annotated[
        str,
        Field(
            "Phone number, with the country's code.",
            example="+49 30 1234567",
            check=_not_a_phone,
            mistaken_names=("phonenumber", "mobile", "tel", "phones"),
        ),
    ]
    externalId: Annotated[
        ExternalId,
        Field(
            "The customer's id in your own system, such as the shop.",
            example="customer-1042",
            mistaken_names=("id", "customerid", "userid"),
        ),
    ]
    create: Annotated[
        bool, Field("On: when nobody is found, make a new customer. Off: return no id then.", example=True)
    ]
    name: Annotated[
        str,
        Field(
            "Name of a new customer. One who is found keeps theirs.",
            example="Ada Lindqvist",
            max_length=256,
            mistaken_names=("fullname", "displayname"),
            showExpr="fields.create",
        ),
    ]


def _nobody(customer: dict[str, Any]) -> str | None:
    return None if customer.keys() & IDENTIFIERS else "must have an email, a phone or an externalId"


_SOMEBODY = Annotated[Customer, Field(check=_nobody)]

CUSTOMER = RecordKind(
    "customer",
    role="org.permission.customer.create",
    redact=("email", "phone", "externalId", "name"),
    conflict="If that goes on, look in Kustomer for who has this e-mail, phone or externalId: it isn't shown.",
)


def main(auth: kustomer, body: "Customer") -> dict[str, Any]:
    """Finds a customer, or makes one if ``create`` is on.

    Looks by externalId, then e-mail (in lower case), then phone (digits and plus only), and takes the first who is
    there. Returns ``{"id": text or None, "created": bool}``; None is nobody. Raises the KustomerErrors of
    f.kustomer.errors.
    """
    run = start(auth, CUSTOMER, body, _SOMEBODY)
    given = run.body
    keys = {name: spelled(given[name]) for name, spelled in IDENTIFIERS.items() if name in given}
    run.hide(*keys.values(), keys.get("phone", "").lstrip("+"))
    if given.get("create"):
        new: dict[str, Any] = {name: given[name] for name in ("name", "externalId") if name in given}
        # Kustomer keeps several of each: https://developer.kustomer.com/api/core-resources/create-customer
        new |= {f"{name}s": [{name: keys[name]}] for name in ("email", "phone") if name in keys}
        found, created = run.create("/v1/customers", [*keys.items()], body=new)
    else:
        found, created = run.find("/v1/customers", [*keys.items()]) or {}, False
    return {"id": dig(found, "data", "id"), "created": created}

"""Find customer.

Finds a customer in Kustomer by e-mail, phone or externalId, and on request makes one who is not there. Calls are those
of https://developer.kustomer.com/api/core-resources/create-customer and its neighbours.
"""

from typing import Any

from f.kustomer.shared.client import CustomerId, Field, RecordKind, Run, dig, kustomer, start
from f.kustomer.shared.contacts import Email, Phone, emails, phone


class Customer:
    """Who the customer is. One of email, phone and externalId is needed; each that is given is looked for."""

    email: Email = Field("E-mail address.", example="ada@example.com")
    phone: Phone = Field("Phone number, with the country's code.", example="+49 30 1234567")
    externalId: CustomerId = Field("The customer's id in your own system, such as the shop.", example="customer-1042")
    create: bool = Field("On: when nobody is found, make a new customer. Off: return no id then.", example=True)
    name: str = Field(
        "Name of a new customer. One who is found keeps theirs.",
        example="Ada Lindqvist",
        max_length=256,
        showExpr="fields.create",
    )

    @staticmethod
    def wrong_together(customer: dict[str, Any]) -> str | None:
        """Return what is wrong where nobody is named."""
        found = customer.keys() & {"email", "phone", "externalId"}
        return None if found else "must have an email, a phone or an externalId"


CUSTOMER = RecordKind(
    "customer",
    role="org.permission.customer.create",
    redact=("email", "phone", "externalId", "name"),
    conflict="If that goes on, look in Kustomer for who has this e-mail, phone or externalId: it isn't shown.",
)


def main(auth: kustomer, body: "Customer") -> dict[str, Any]:
    """Find a customer, or make one if ``create`` is on.

    Look by externalId, then e-mail, then phone, each in one spelling (f.kustomer.shared.contacts), and take the first
    who is there. Return ``{"id": text or None, "created": bool}``; None is nobody. Raise the KustomerErrors of
    f.kustomer.shared.errors.
    """
    run = start(auth, CUSTOMER, body, Customer)
    return find_customer(run, run.body)


def find_customer(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    """Find the customer who is ``given``, or make them, as ``main`` does; ``run`` is one for CUSTOMER."""
    keys = lookup_keys(given)
    run.hide(*(value for _, value in keys), *(value[1:] for _, value in keys if value.startswith("+")))
    if given.get("create"):
        found, created = run.create("/v1/customers", keys, body=new_customer(given))
    else:
        found, created = run.find("/v1/customers", keys) or {}, False
    return {"id": dig(found, "data", "id"), "created": created}


def lookup_keys(given: dict[str, Any]) -> list[tuple[str, str]]:
    """Return by what a customer is looked for, in order: names and values as in ``/v1/customers/email={value}``."""
    keys = [("externalId", given["externalId"])] if "externalId" in given else []
    keys += [("email", each) for each in emails(given["email"])] if "email" in given else []
    return [*keys, ("phone", phone(given["phone"]))] if "phone" in given else keys


def new_customer(given: dict[str, Any]) -> dict[str, Any]:
    """Return the body that makes the customer who is ``given``.

    Kustomer keeps several e-mails and phones of each: https://developer.kustomer.com/api/core-resources/create-customer
    """
    new: dict[str, Any] = {name: given[name] for name in ("name", "externalId") if name in given}
    if "email" in given:
        new["emails"] = [{"email": emails(given["email"])[0]}]
    if "phone" in given:
        new["phones"] = [{"phone": phone(given["phone"])}]
    return new

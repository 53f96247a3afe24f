# py: ==3.12.*
# Windmill doesn't see an import where it is needed. idna, which requests needs too, is pinned in wire.
# requirements:
# phonenumberslite==9.0.42
"""Kustomer contacts.

Shared by the Kustomer steps, not run by itself: spells e-mail addresses and phone numbers in one way, so that the same
person is the same customer however an address or a number was written.
"""

import re
from functools import lru_cache
from typing import Annotated
from unicodedata import normalize

from f.kustomer.shared.inputs import Field

# A local part may stand in quotes, with anything in it: https://www.rfc-editor.org/rfc/rfc5321#section-4.1.2. No domain
# ends with a dot here, as it would be the end of a sentence; U+3002, U+FF0E and U+FF61 are dots too.
_ADDRESS = r"""^\s*("([^"\\]|\\.)+"|[^@\s<>:;,"]+)@[^@\s<>:;,"]*[^@\s<>:;,".\u3002\uff0e\uff61]\s*$"""
_NO_ADDRESS = "must be an e-mail address such as ada@example.com, without a name"
_UNSEEN = "has an invisible or broken character in it: type it anew"

# Copied numbers come with dashes of all kinds, and marks that nobody sees.
_BETWEEN_DIGITS = r"[\s./\u2010-\u2015\u2212\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2069-]"
_NO_PHONE = "must be a phone number such as +49 30 1234567"
_NO_COUNTRY = "must have a country's code that exists, and a number behind it, as in +49 30 1234567"
_NOT_POSSIBLE = "begins with 00 and is no possible number abroad: give it as in +49 30 1234567"
_TWO = "is more than one number: give one of them"
# What would pass for a number once it is stripped to its digits, and is none, or another one.
_SOMETHING_ELSE = (
    (r"^\s*'", "has a ' in front, with which a spreadsheet marks text: take it off"),
    (
        r"\d([eE]\+?\d|[.,]00?\s*$)",
        "is a number that a spreadsheet or a program made of the phone: export it again, as text",
    ),
    (
        r"^\s*((19|20)\d\d([-./])[01]\d\3[0-3]\d|[0-3]?\d([-./])[01]?\d\4(19|20)\d\d)\s*$",
        "is a date, no phone number: look which field it is from",
    ),
    (
        r"^\s*(?!(\d\d\.){3}\d\d\s*$)((25[0-5]|2[0-4]\d|1?\d?\d)(\.|\s*$)){4}$",
        "is a computer's address, no phone number: look which field it is from",
    ),
    (r"(?i)^((tel|whatsapp):)? [1-9]", "begins with a blank, as where a + was lost: give it as in +49 30 1234567"),
)
# Before a slash stands an area's code, of five digits at most besides the country's or a 0, or a whole number.
_WHOLE_NUMBER = {True: 9, False: 7}


def emails(text: str) -> list[str]:
    """Return the spellings under which an e-mail address is looked for; a new customer gets the first one.

    There are two where the domain has a spelling in ASCII and one in other letters, and one otherwise:
    https://www.rfc-editor.org/rfc/rfc5890#section-2.3.2.1
    """
    local, _, domain = normalize("NFC", text.strip().lower()).rpartition("@")
    return [f"{local}@{each}" for each in _spellings(domain)]


def _spellings(domain: str) -> list[str]:
    if domain.isascii() and "xn--" not in domain:
        return [domain]
    import idna  # 17 ms, and 30 more for its tables, which only such a domain pays

    try:
        plain = idna.encode(domain, uts46=True).decode("ascii")
        return list(dict.fromkeys([plain, idna.decode(plain)]))
    except UnicodeError:  # nothing that could be registered today, but perhaps somebody's all the same
        return [domain]


def not_an_email(text: str) -> str | None:
    """Return what keeps a text from being one e-mail address, without quoting it; None where nothing does."""
    if not re.search(_ADDRESS, text):
        return _NO_ADDRESS
    # Copying brings such characters along, and with them the address would be another one.
    return None if text.strip().isprintable() else _UNSEEN


def phone(text: str) -> str:
    """Return the one spelling of a phone number: ``+`` and digits, or digits only where it has no country's code."""
    return _read(text)[0]


def not_a_phone(text: str) -> str | None:
    """Return what keeps a text from being one phone number, without quoting it; None where nothing does."""
    return _read(text)[1]


@lru_cache(1024)  # each is read to be checked and again to be spelled, and a history has the same ones again and again
def _read(text: str) -> tuple[str, str | None]:
    """Return the spelling of a phone number, and what is wrong with it."""
    bare, digits = _bare(text), _digits(text)
    for pattern, why in _SOMETHING_ELSE:
        if re.search(pattern, text):
            return digits, why
    # E.164 allows 15 digits; a shorter number than 5 is a service's, not somebody's.
    if not re.fullmatch(r"\+?[0-9]{5,15}", digits):
        return digits, _NO_PHONE
    before, slash, _ = text.partition("/")
    if slash and len(_digits(before).removeprefix("+")) >= _WHOLE_NUMBER[digits.startswith("+")]:
        return digits, _TWO
    if not digits.startswith("+"):
        return digits, None
    import phonenumbers  # 40 ms, which only a number with a country's code pays

    dialled = re.sub("^00", "+", re.sub("[()]", "", bare))
    try:
        number = phonenumbers.parse(dialled)
    except phonenumbers.NumberParseException:
        return digits, _NO_COUNTRY
    possible = phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    if re.match(r"\(?00", bare) and not possible:
        return digits, _NOT_POSSIBLE
    # What the library doesn't know keeps its digits, but for the 0 of +49 (0)30, which is dialled in some countries.
    if phonenumbers.is_valid_number(number) or dialled != digits:
        return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164), None
    return digits, None


def _bare(text: str) -> str:
    return re.sub(r"(?i)^(tel|whatsapp):", "", re.sub(_BETWEEN_DIGITS, "", text))


def _digits(text: str) -> str:
    """Return what is left to dial from abroad."""
    return re.sub("^00", "+", re.sub(r"(?<!^)\(0\)|[()]", "", _bare(text)))


Email = Annotated[str, Field(pattern=_ADDRESS, customErrorMessage=_NO_ADDRESS, check=not_an_email)]
Phone = Annotated[str, Field(check=not_a_phone)]

"""One person's e-mail address and phone number have one spelling, however they were written."""

import subprocess
import sys
import unicodedata

import pytest

from f.kustomer.shared.contacts import emails, not_a_phone, not_an_email, phone

NO_ADDRESS = "must be an e-mail address such as ada@example.com, without a name"
UNSEEN = "has an invisible or broken character in it: type it anew"
NO_PHONE = "must be a phone number such as +49 30 1234567"
NO_COUNTRY = "must have a country's code that exists, and a number behind it, as in +49 30 1234567"
NOT_POSSIBLE = "begins with 00 and is no possible number abroad: give it as in +49 30 1234567"
TWO = "is more than one number: give one of them"
MADE = "is a number that a spreadsheet or a program made of the phone: export it again, as text"
LOST_PLUS = "begins with a blank, as where a + was lost: give it as in +49 30 1234567"
A_DATE = "is a date, no phone number: look which field it is from"
AN_ADDRESS = "is a computer's address, no phone number: look which field it is from"
MARKED = "has a ' in front, with which a spreadsheet marks text: take it off"

EMAILS = {
    ("ada@example.com",): ["ada@example.com", " ADA@Example.COM\r\n", "ada@EXAMPLE.com\N{NO-BREAK SPACE}"],
    ("zoë@x.example",): ["zoë@x.example", unicodedata.normalize("NFD", "ZOË@x.example")],
    ('"ada l."@x.example',): ['"Ada L."@X.example'],
    ('"ada@home, \\"x\\""@x.example',): ['"Ada@Home, \\"X\\""@x.example'],
    ("ada@xn--bcher-kva.example", "ada@bücher.example"): [
        "ada@bücher.example",
        "Ada@BÜCHER.example",
        unicodedata.normalize("NFD", "ada@bücher.example"),
        "ada@xn--bcher-kva.example",
        "ada@XN--BCHER-KVA.example",
        "ada@bücher\N{IDEOGRAPHIC FULL STOP}example",
    ],
    ("ada@xn--strae-oqa.example", "ada@straße.example"): ["ada@STRAẞE.example", "ada@straße.example"],
    ("eda@example.com",): [
        "eda@\N{FULLWIDTH LATIN CAPITAL LETTER E}xample.com",
    ],
    # What IDNA refuses stays as it is.
    ("ada@☃.example",): ["ada@☃.example", "ADA@☃.Example"],
    ("ada@xn--n3h.example",): ["ada@XN--n3h.example"],
    ("ada@a_b.ü.example",): ["ada@A_b.Ü.example"],
    ("ada@x..ü",): ["ada@x..ü"],
    (f"ada@{'ü.' * 127}example",): [f"ada@{'Ü.' * 127}example"],
}

PHONES = {
    "+390612345678": [
        "+39 (0)6 12345678",
        "0039 06 12345678",
        "tel:+390612345678",
        "TEL: +39-06-12345678",
        "whatsapp:+390612345678",
        "(+39) 06 / 123.456.78",
        "(0039) (0)6 12345678",
    ],
    "+442079460958": ["+44 (0)20 7946 0958", "+44 020 7946 0958", "0044 20 7946 0958", "+44 (020) 7946 0958"],
    "+3612345678": ["+36 (06) 1 234 5678", "+36 1 234 5678"],
    # Lengths and ranges that the library doesn't know.
    "+15550100100": ["+1 555 010 0100", "001 555 010 0100"],
    "+123456789012345": ["+1234 5678 9012 345"],
    "+44123": ["+44 123"],
    "+493012": ["+49 30 12", "+49 (0)30 12"],
    "+4903012": ["+49 030 12"],
    "+3906123": ["+39 (0)6 123", "+39 06 123"],
    # Without a country.
    "03012345": ["030 12345", "(030) 12345", "(0)30 12345", "tel:030-12345", "\N{LEFT-TO-RIGHT MARK}030 12345"],
    "12345": ["12345"],
    # What looks a little like a date, a computer's address, a float or two numbers, and is a number.
    "12345678": ["12.34.56.78", "12/34/56/78", "1234-5678"],
    "0123456789": ["01.23.45.67.89"],
    "20190504": ["20190504"],
    "033209123456": ["033209 / 123456", "033209/123456"],
    "+4933209123456": ["+49 33209 / 123456", "+49 (0)33209 / 123456", "0049 33209/123456"],
    "0301200": ["030/1200", "030.1200"],
}

WRONG_PHONES = {
    NO_PHONE: [
        "",
        "ada",
        "1234",
        "+49",
        "+49 (0)",
        "+1-800-FLOWERS",
        "+49 30 765432 ext. 5",
        "+49 30 765432x5",
        "tel:+4930765432;ext=5",
        "+49 30 765432#5",
        "+49 30 765432, +49 30 765433",
        "+1234567890123456",
        "++49 30 765432",
        "sip:+4930765432",
        "\N{FULLWIDTH DIGIT ZERO}30765432",
    ],
    NO_COUNTRY: ["+999 12345", "+210 12345678", "+0049 30 765432", "+00000", "00999 12345", "000000000"],
    TWO: [
        "555-0100 / 555-0101",
        "555-0100/555-0101",
        "+33 1 23 45 67 89 / 90",
        "0033 1 23 45 67 89 / 90",
        "+49 33209 1234 / 1235",
    ],
    MADE: ["491761234567.0", "491761234567,0", "30765432.00 ", "4.91761234567E+11", "4.91761234567e11", "49176e9"],
    LOST_PLUS: [" 14155238886", "whatsapp: 14155238886", "WhatsApp: 49 30 765432", "tel: 4930765432"],
    A_DATE: ["2019-05-04", "2019/05/04", "2019.05.04", "04.05.2019", "4.5.2019", "05/04/2019", " 1999-12-31"],
    AN_ADDRESS: ["10.0.0.1", "192.168.10.254", "127.0.0.1 ", "8.8.88.88"],
    MARKED: ["'+49 30 765432", "'030 765432", " '4930765432"],
    NOT_POSSIBLE: ["0049 301", "0039 06 12", "00 1 555 0100", "0044 123"],
}


@pytest.mark.parametrize(
    ("spelled", "text"), [(list(spelled), text) for spelled, texts in EMAILS.items() for text in texts], ids=ascii
)
def test_address_is_looked_for_in_the_same_spellings_however_it_is_written(spelled: list[str], text: str) -> None:
    """And each of these spellings is that of the same address."""
    assert not_an_email(text) is None
    assert emails(text) == spelled
    assert [emails(each) for each in spelled] == [spelled] * len(spelled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "ada",
        "ada@",
        "@x.example",
        "a@b@c",
        "ada @x.example",
        "Ada <ada@x.example>",
        "ada@x.example.",
        "ada@例え.jp\N{IDEOGRAPHIC FULL STOP}",
        "a@x.example; b@x.example",
        '""@x.example',
        '"ada"b@x.example',
        '"ada@x.example',
        '"ada\\"@x.example',
        "mailto:ada@x.example",
    ],
    ids=ascii,
)
def test_what_is_no_address_is_told(text: str) -> None:
    """A list of them, a name beside it, the end of a sentence."""
    assert not_an_email(text) == NO_ADDRESS


@pytest.mark.parametrize("text", ["ada\u200b@x.example", '"a\nb"@x.example', "ada@x\u00ad.example", "\ud83d@x.example"])
def test_address_with_what_nobody_sees_is_told(text: str) -> None:
    """Nobody would find the customer by the address that they read."""
    assert not_an_email(text) == UNSEEN


@pytest.mark.parametrize(
    ("spelled", "text"), [(spelled, text) for spelled, texts in PHONES.items() for text in texts], ids=ascii
)
def test_number_has_one_spelling_however_it_is_written(spelled: str, text: str) -> None:
    """And the spelling is its own."""
    assert not_a_phone(text) is None
    assert phone(text) == spelled
    assert (phone(spelled), not_a_phone(spelled)) == (spelled, None)


@pytest.mark.parametrize(
    ("wrong", "text"), [(wrong, text) for wrong, texts in WRONG_PHONES.items() for text in texts], ids=ascii
)
def test_what_is_no_number_is_told(wrong: str, text: str) -> None:
    """Letters, an extension, a country that doesn't exist, 00 before what nobody could dial."""
    assert not_a_phone(text) == wrong


def test_library_is_imported_only_when_it_is_needed() -> None:
    """Most messages come from an address in ASCII, and pay for neither."""
    code = (
        "import sys; from f.kustomer.shared.contacts import emails, phone, not_an_email, not_a_phone;"
        "emails('ada@x.example'), not_an_email('ada@x.example'), phone('030 12345'), not_a_phone('030 12345');"
        "print({'idna', 'phonenumbers'} & set(sys.modules));"
        "emails('ada@ü.example'), phone('+49 30 12345'); print(sorted({'idna', 'phonenumbers'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n['idna', 'phonenumbers']\n"

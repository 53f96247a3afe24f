"""The resource is checked before anything is sent, and decides where the key may go."""

from typing import Any

import pytest

from f.kustomer.create_message import main
from f.kustomer.shared.errors import InvalidInput, KustomerError
from f.kustomer.shared.inputs import connection
from tests.conftest import Body, Step
from tests.standin.kustomer import Kustomer

ACME = "https://acme.api.kustomerapp.com"
# Short enough to be quoted whole, and in no text of our own.
KEY = "eyJhbGciOi.zq7Wx.J9-_"


def refused(error: KustomerError) -> dict[str | None, str | None]:
    """What is wrong at which path; the test fails for anything but a refusal before sending."""
    assert isinstance(error, InvalidInput)
    assert (error.outcome, error.retryable, error.attempts, error.status) == ("not_sent", False, 0, None)
    assert all(set(each) == {"code", "title", "detail", "path"} for each in error.errors)
    assert all(str(each["path"]) in str(error) for each in error.errors)
    return {each["path"]: each["title"] for each in error.errors}


def goes_to(**resource: object) -> tuple[str, str]:
    """Where a right resource sends, and with which key."""
    to, problems = connection({"apiKey": KEY, **resource})
    assert problems == []
    return to.base, to.key


def wrong_in(**resource: object) -> list[str]:
    """The paths of all problems of a resource."""
    return [path for path, _ in connection({"apiKey": KEY, **resource})[1]]


# The key


@pytest.mark.parametrize(
    "pasted",
    ["{}", " {}", "{} ", "{}\n", "\r\n\t{}\r\n", "\u00a0{}\u00a0", "Bearer {}", "bearer {}", " BEARER \t {} \n"],
    ids=ascii,
)
def test_white_space_and_bearer_around_a_pasted_key_are_taken_off(
    run: Step, message: Body, kustomer: Kustomer, pasted: str
) -> None:
    """Kustomer gets the bare key, once marked as a bearer's."""
    key = kustomer.keys["full"]
    assert run(message, apiKey=pasted.format(key)).id
    assert [seen.headers["Authorization"] for seen in kustomer.requests] == [f"Bearer {key}"]


@pytest.mark.parametrize("key", ["x", "Bearer-like", "bearerx", "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"])
def test_any_printable_ascii_key_is_sent_as_it_is(key: str) -> None:
    """Nobody says which characters a key may have, so no more are refused than a header refuses."""
    assert goes_to(apiKey=key)[1] == key


@pytest.mark.parametrize(
    "key",
    ["", " ", "\n\t", "Bearer", "Bearer ", " bearer\n"]
    + [f"{KEY[:5]}{odd}{KEY[5:]}" for odd in (" ", "\t", "\n", "\r\nHost: x", "\0", "\x1b", "\x7f", "\x85", "\u00a0")]
    + [f"{KEY[:5]}{odd}{KEY[5:]}" for odd in ("é", "—", "\u200b", "\ufeff", "\u2028", "\ud800", "😀", "А")]  # noqa: RUF001
    + [f"Bearer {KEY} {KEY}", f"Bearer Bearer {KEY}", f"Basic {KEY}", f"{KEY}\u200b", f"\ufeff{KEY}"],
    ids=ascii,
)
def test_a_key_that_no_header_can_carry_is_refused(run: Step, message: Body, key: str) -> None:
    """An empty, broken or decorated key is a problem of auth.apiKey alone, and isn't quoted."""
    error = run(message, apiKey=key).failed
    assert list(refused(error)) == ["auth.apiKey"]
    assert KEY[:5] not in f"{error!r} {error.errors}"
    assert KEY[5:] not in f"{error!r} {error.errors}"


@pytest.mark.parametrize("key", [5, 0, 1.5, True, False, ["k"], {"value": "k"}, [[0]]], ids=repr)
def test_a_key_that_is_not_text_is_refused(run: Step, message: Body, key: object) -> None:
    """A resource's fields may hold any JSON."""
    assert list(refused(run(message, apiKey=key).failed)) == ["auth.apiKey"]


@pytest.mark.parametrize(
    "key", ["$var:f/kustomer/key", "$res:f/kustomer/key", " $var:u/ada/key", "Bearer $var:f/kustomer/key"]
)
def test_a_key_that_windmill_did_not_resolve_is_refused(run: Step, message: Body, key: str) -> None:
    """The name of a variable is no key, also behind a Bearer that keeps Windmill from resolving it."""
    problem = refused(run(message, apiKey=key).failed)["auth.apiKey"]
    assert problem
    assert "did not resolve" in problem


# The resource


@pytest.mark.parametrize(
    "auth",
    [None, "", KEY, "$res:u/ada/kustomer", "$var:u/ada/key", [], [KEY], [{"apiKey": KEY}], 5, 0, 1.5, True, False],
    ids=repr,
)
def test_auth_that_is_not_a_resource_is_refused(message: Body, auth: Any) -> None:
    """Missing, unresolved or of another type: one problem, at auth, and no word of what it was."""
    with pytest.raises(InvalidInput) as raised:
        main(auth, message)  # type: ignore[arg-type]
    problems = refused(raised.value)
    assert list(problems) == ["auth"]
    assert KEY not in f"{raised.value!r} {raised.value.errors}"
    assert ("did not resolve" in str(problems["auth"])) == (isinstance(auth, str) and auth.startswith("$"))
    assert ("is missing" in str(problems["auth"])) == (auth is None)


def test_auth_without_a_key_is_refused(message: Body) -> None:
    """An empty resource lacks its key."""
    with pytest.raises(InvalidInput) as raised:
        main({}, message)  # type: ignore[arg-type, typeddict-item]
    assert refused(raised.value) == {"auth.apiKey": "is missing"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("api_key", "apiKey"),
        ("apikey", "apiKey"),
        ("APIKEY", "apiKey"),
        ("apiKeys", "apiKey"),
        ("orgname", "orgName"),
        ("org_name", "orgName"),
        ("baseURL", "baseUrl"),
        ("base_url", "baseUrl"),
    ],
)
def test_a_misspelt_field_of_the_resource_is_refused_with_the_one_meant(
    run: Step, message: Body, name: str, meant: str
) -> None:
    """A field that would go unread is told, with the right spelling, and its value isn't."""
    error = run(message, **{name: KEY}).failed
    problems = refused(error)
    assert list(problems) == [f"auth.{name}"]
    assert f"{meant!r}" in str(problems[f"auth.{name}"])
    assert KEY not in f"{error!r} {error.errors}"


def test_all_problems_of_auth_and_body_come_in_one_error(run: Step, kustomer: Kustomer) -> None:
    """Whoever mends a step mends it once."""
    wrong = {"apiKey": "two words", "orgName": "evil.example", "baseUrl": "ftp://evil.example", "extra": 1}
    error = run({"channel": "email", "direction": "inbound"}, **wrong).failed
    paths = {"auth.apiKey", "auth.orgName", "auth.baseUrl", "auth.extra", "body.direction", "body.app"}
    assert set(refused(error)) == paths
    assert len(error.errors) == len(paths)
    assert kustomer.requests == []


# The organisation


@pytest.mark.parametrize(
    "name",
    [
        "acme",
        "ACME",
        " acme\n",
        "acme.kustomerapp.com",
        "https://acme.kustomerapp.com",
        "https://acme.kustomerapp.com/",
        "http://acme.kustomerapp.com",
        "HTTPS://Acme.KustomerApp.com/app/customers/65a1b2c3d4e5f60718293a4b?tab=1#top",
        "https://acme.kustomerapp.com?next=https://evil.example",
        "acme.api.kustomerapp.com",
        "https://acme.api.kustomerapp.com/v1",
    ],
    ids=ascii,
)
def test_a_pasted_address_of_the_organisation_is_reduced_to_its_name(name: str) -> None:
    """What stands in an agent's address bar will do."""
    assert goes_to(orgName=name) == (ACME, KEY)


@pytest.mark.parametrize(
    ("name", "host"), [("a", "a"), ("0", "0"), ("a-1", "a-1"), ("a--b", "a--b"), ("x" * 63, "x" * 63)]
)
def test_any_plain_host_label_is_an_organisation(name: str, host: str) -> None:
    """Up to 63 letters, digits and inner hyphens."""
    assert goes_to(orgName=name)[0] == f"https://{host}.api.kustomerapp.com"


@pytest.mark.parametrize(
    "name",
    [
        "x" * 64,
        "-acme",
        "acme-",
        "acme_1",
        "acme corp",
        "acme\tcorp",
        "acme\n.evil.example/",
        "acmé",
        "\u212aacme",  # the Kelvin sign, a k for a careless comparison
        "https://\u212aacme.kustomerapp.com",
        "acme.\u212austomerapp.com",
        "acme\u3002evil",  # a full stop, for some
        "a.b",
        ".acme",
        "acme.",
        "evil.example",
        "acme.evil.example",
        "acme:443",
        "acme:pw@evil.example",
        "acme/",
        "acme#",
        "acme?",
        "acme\\evil.example",
        "../acme",
        "%61cme",
        "@evil.example/",
        "evil.example/.kustomerapp.com",
        "evil.example#.kustomerapp.com",
        "evil.example?.kustomerapp.com",
        "https://evil.example/acme.kustomerapp.com",
        "https://evil.example#acme.kustomerapp.com",
        "https://acme.kustomerapp.com.evil.example",
        "https://acme.kustomerapp.com@evil.example",
        "https://acme.kustomerapp.com:443@evil.example",
        "https://acme@evil.example.kustomerapp.com",
        "https://acmekustomerapp.com",
        "https://a.b.kustomerapp.com",
        "https://kustomerapp.com",
        "https://api.kustomerapp.com",
        "https://www.kustomerapp.com",
        "ftp://acme.kustomerapp.com",
        "$var:f/kustomer/org",
    ],
    ids=ascii,
)
def test_an_organisation_that_is_not_a_plain_host_label_is_refused(run: Step, message: Body, name: str) -> None:
    """The key goes to no host that a slip, or somebody, has put there."""
    error = run(message, orgName=name).failed
    assert list(refused(error)) == ["auth.orgName"]
    assert "evil" not in f"{error!r} {error.errors}"


# The address


def test_without_address_and_organisation_the_key_goes_to_kustomers_own_host() -> None:
    """The resource that Windmill's Hub defines holds a key and nothing else."""
    assert goes_to() == ("https://api.kustomerapp.com", KEY)


def test_a_given_address_goes_before_the_organisation() -> None:
    """Whoever fills in both means the more precise one."""
    assert (
        goes_to(orgName="acme", baseUrl="https://api.prod2.kustomerapp.com")[0] == "https://api.prod2.kustomerapp.com"
    )


@pytest.mark.parametrize(
    ("address", "base"),
    [
        ("https://api.prod2.kustomerapp.com", "https://api.prod2.kustomerapp.com"),
        ("https://api.prod2.kustomerapp.com/", "https://api.prod2.kustomerapp.com"),
        ("https://api.prod2.kustomerapp.com/v1", "https://api.prod2.kustomerapp.com"),
        ("https://api.prod2.kustomerapp.com/v1/", "https://api.prod2.kustomerapp.com"),
        (" HTTPS://API.prod2.KustomerApp.com\n", "https://api.prod2.kustomerapp.com"),
        ("https://gateway.acme.example:8443/kustomer/v1", "https://gateway.acme.example:8443/kustomer"),
        ("https://gateway/", "https://gateway"),
        ("https://10.0.0.1", "https://10.0.0.1"),
        ("http://localhost:8080", "http://localhost:8080"),
        ("http://LOCALHOST", "http://localhost"),
        ("http://127.0.0.1:1/v1", "http://127.0.0.1:1"),
        ("http://127.9.8.7", "http://127.9.8.7"),
        ("http://[::1]:65535/", "http://[::1]:65535"),
    ],
    ids=ascii,
)
def test_an_https_address_is_taken_without_what_the_step_adds(address: str, base: str) -> None:
    """Blanks, capitals, a slash and /v1 at the end are taken off; http is for loopback hosts."""
    assert goes_to(baseUrl=address) == (base, KEY)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", " "])
def test_each_spelling_of_an_address_asks_for_the_same_path(
    run: Step, message: Body, kustomer: Kustomer, end: str
) -> None:
    """No doubled slash and no doubled /v1 reach the server."""
    assert run(message, baseUrl=kustomer.url + end).id
    assert [seen.path for seen in kustomer.requests] == ["/v1/messages"]


@pytest.mark.parametrize(
    "address",
    [
        "http://api.kustomerapp.com",
        "http://evil.example",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://128.0.0.1",
        "http://127.1.evil.example",
        "http://127.0.0.1.evil.example",
        "http://127.0.0.1.1",
        "http://127.0.0.256",  # not an address, so a name that some DNS may know
        "http://127.999.1.1",
        "http://localhost.evil.example",
        "http://evil-localhost",
        "http://[::2]",
        "http://[::ffff:10.0.0.1]",
        "http://localhost@evil.example",
        "http://evil.example#localhost",
        "http://evil.example?localhost",
        "http://evil.example\\@localhost",
    ],
    ids=ascii,
)
def test_plain_http_to_another_machine_is_refused(run: Step, message: Body, address: str) -> None:
    """On the way there anybody could read the key."""
    assert list(refused(run(message, baseUrl=address).failed)) == ["auth.baseUrl"]


@pytest.mark.parametrize(
    "address",
    [
        "api.kustomerapp.com",
        "//api.kustomerapp.com",
        "https:api.kustomerapp.com",
        "https:/api.kustomerapp.com",
        "https://",
        "https:///v1",
        "https://.",
        "https://a..b",
        "https://-a.example",
        "https://a_b.example",
        "ftp://api.kustomerapp.com",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://user@api.kustomerapp.com",
        "https://user:pw@api.kustomerapp.com",
        "https://:@api.kustomerapp.com",
        "https://@api.kustomerapp.com",
        "https://api.kustomerapp.com@evil.example",
        "https://api.kustomerapp.com?",
        "https://api.kustomerapp.com/?a=b",
        "https://api.kustomerapp.com/v1?a=b",
        "https://api.kustomerapp.com#",
        "https://api.kustomerapp.com/#a",
        "https://api.kustomerapp.com:",
        "https://api.kustomerapp.com:x",
        "https://api.kustomerapp.com:-1",
        "https://api.kustomerapp.com:65536",
        "https://api.kustomerapp.com:99999999999",
        "https://api.kustomerapp.com:\u0664\u0664\u0663",  # digits, for int()
        "https://api.kustomerapp.com evil.example",
        "https://api.kustomerapp.com\nevil.example",
        "https://api.kustomerapp.com\r\nX: y",
        "https://api.kustomerapp.com\\@evil.example",
        "https://api.kustomerapp.com/%2e%2e",
        "https://acmé.example",
        "https://api.\u212austomerapp.com",
        "https://[::1",
        "https://[evil.example]",
        "$res:f/kustomer/base",
        "$var:f/kustomer/base",
    ],
    ids=ascii,
)
def test_an_address_that_is_more_or_less_than_a_base_is_refused(run: Step, message: Body, address: str) -> None:
    """No other scheme, no user, no query, no fragment, nothing that two parsers could read in two ways."""
    error = run(message, baseUrl=address).failed
    assert list(refused(error)) == ["auth.baseUrl"]
    assert "evil" not in f"{error!r} {error.errors}"


@pytest.mark.parametrize("value", [5, 0, True, False, ["https://a.example"], {"url": "https://a.example"}], ids=repr)
@pytest.mark.parametrize("name", ["orgName", "baseUrl"])
def test_a_host_that_is_not_text_is_refused(name: str, value: object) -> None:
    """A false or a 0 is an answer too, and a wrong one here."""
    assert wrong_in(**{name: value}) == [f"auth.{name}"]


def test_a_connection_does_not_show_its_key() -> None:
    """What is printed in passing keeps the key inside."""
    to, _ = connection({"apiKey": KEY})
    assert KEY not in f"{to!r} {to}"

"""A mistake in a proxy's address or login is told as that: without the login, and without blaming the resource."""

import base64
import re

import pytest

from f.kustomer.shared.errors import BadProxy, CannotConnect, KustomerError
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body, Step
from tests.other_steps.test_upload_attachment import place
from tests.standin.adversary import Adversary, answer, read, send
from tests.standin.kustomer import Kustomer

LOGIN = "some-one:pass-word-1042"
ENCODED = base64.b64encode(LOGIN.encode()).decode()
NOWHERE = "https://nowhere.invalid"
REFUSED = answer("407 Proxy Authentication Required", b"Who are you?", 'Proxy-Authenticate: Basic realm="acme"')

# A proxy's address, and the words that name it and what is wrong with it.
MISTAKES: dict[str, tuple[str, list[str]]] = {
    "socks5": (f"socks5://{LOGIN}@proxy.acme.example:1080", ["proxy.acme.example", "socks5"]),
    "socks5h": ("socks5h://proxy.acme.example:1080", ["proxy.acme.example", "socks5h"]),
    "socks4": ("socks4://127.0.0.1:1080", ["127.0.0.1", "socks4"]),
    "ftp": (f"ftp://{LOGIN}@proxy.acme.example", ["proxy.acme.example", "ftp"]),
    "too great a port": (f"http://{LOGIN}@127.0.0.1:99999", ["port"]),
    "a port of letters": (f"http://{LOGIN}@proxy.acme.example:http", ["port"]),
    "half an address": (f"http://{LOGIN}@[::1", []),
    "no host": ("http://", []),
    "neither scheme nor host": ("://", []),
    "a login and no host": (f"http://{LOGIN}@", []),
    "a password that is not Latin-1": (
        "http://some-one:pass-word-1042\u20ac@127.0.0.1:8080",
        ["127.0.0.1:8080", "password"],
    ),
    "one that is quoted": ("http://some-one:pass-word-1042%E2%82%AC@127.0.0.1:8080", ["127.0.0.1:8080", "password"]),
    "a login with a slash": ("http://some-one:pass-word/1042@proxy.acme.example:8080:1", []),
}


def mistaken(error: KustomerError, waits: list[float], words: list[str], log: str) -> None:
    """Hold what is said of a proxy that trying again won't mend."""
    assert (type(error), error.outcome, error.retryable) == (BadProxy, "not_sent", False)
    assert isinstance(error, CannotConnect)
    assert (error.status, error.retry_after, error.attempts, waits) == (None, None, 1, [])
    text = str(error)
    assert "proxy" in text.lower()
    assert [word for word in words if word not in text] == []
    assert re.findall("orgName|baseUrl|kustomer resource|is safe", text) == []
    assert re.findall("some-one|pass-word|1042", text + repr(error) + str(vars(error)) + log) == []
    assert ENCODED not in text + log


@pytest.mark.parametrize("extra", [{}, {"externalId": "order-17"}], ids=["no externalId", "externalId"])
@pytest.mark.parametrize("name", MISTAKES)
def test_a_wrong_address_of_a_proxy_is_told(
    run: Step,
    message: Body,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    extra: Body,
) -> None:
    """And nothing is tried, as nothing could come of it."""
    proxy, words = MISTAKES[name]
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    error = run(message | extra, baseUrl=NOWHERE).failed
    mistaken(error, waits, words, "".join(capsys.readouterr()))


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_that_does_not_know_the_login_is_told(
    adversary: Adversary,
    run: Step,
    message: Body,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
) -> None:
    """By its status, which is no status of Kustomer's, and what to correct."""
    proxy = adversary.play([read(), send(REFUSED)])
    monkeypatch.setenv(variable, f"http://{LOGIN}@127.0.0.1:{proxy.port}")
    error = run(message, baseUrl=NOWHERE).failed
    words = ["407", "user name", "password", f"127.0.0.1:{proxy.port}"]
    mistaken(error, waits, words, "".join(capsys.readouterr()))
    assert [ENCODED.encode() in each.data for each in proxy.requests] == [True]


def test_a_proxy_that_wants_a_login_is_told(
    adversary: Adversary,
    run: Step,
    message: Body,
    waits: list[float],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """None was given."""
    proxy = adversary.play([read(), send(REFUSED)])
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    error = run(message, baseUrl=NOWHERE).failed
    mistaken(error, waits, ["407", "user name", "password"], "".join(capsys.readouterr()))


@pytest.mark.parametrize(
    "status", ["403 Forbidden", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"]
)
def test_any_other_refusal_of_a_proxy_may_pass(
    adversary: Adversary, run: Step, message: Body, waits: list[float], monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """It is tried again; the proxy is named, and its login isn't."""
    proxy = adversary.play([read(), send(answer(status))])
    monkeypatch.setenv("HTTPS_PROXY", f"http://{LOGIN}@127.0.0.1:{proxy.port}")
    error = run(message, baseUrl=NOWHERE).failed
    assert (type(error), error.outcome, error.retryable, error.attempts) == (CannotConnect, "not_sent", True, 3)
    assert "proxy" in str(error)
    assert re.findall("some-one|pass-word", str(error)) == []
    assert len(waits) == 2


def test_an_upload_s_proxy_is_told_too(
    kustomer: Kustomer, auth: Body, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only files go through it here, as Kustomer is on this machine."""
    monkeypatch.setenv("HTTPS_PROXY", f"socks5://{LOGIN}@proxy.acme.example:1080")
    kustomer.fault(place("https://uploads.invalid/"))
    with pytest.raises(BadProxy) as caught:
        upload(auth, {"content": "AAAA", "name": "a.txt"})  # type: ignore[arg-type]
    assert (caught.value.outcome, caught.value.retryable, waits) == ("not_sent", False, [])
    assert "socks5" in str(caught.value)
    assert "pass-word" not in str(caught.value)

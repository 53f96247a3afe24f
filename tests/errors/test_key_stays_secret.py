"""The key goes nowhere but to Kustomer, and neither it, a long piece of it nor a message's text comes back out."""

import json
import pathlib
from typing import Any

import pytest

from f.kustomer.shared.errors import KustomerError, Redactor
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body, Step, shown, spilled
from tests.other_steps.test_upload_attachment import xml
from tests.standin import worker
from tests.standin.kustomer import UPLOAD_PATH, Fault, Kustomer
from tests.standin.windmill import Workspace

TEXT = 'My card number is\n"4111 1111 1111 1111", please hélp'


# What Kustomer throws back


def echoes(key: str) -> list[Fault]:
    """Answers that throw back what they were sent."""
    said = f"Bearer {key} sent: {TEXT}"
    return [
        Fault.answer(400, {"errors": [{"code": said, "title": said, "detail": said, "source": {"pointer": said}}]}),
        Fault.answer(400, {"errors": [{"code": "x", "message": json.dumps({"preview": TEXT, "key": key})}]}),
        Fault.answer(401, {"errors": [said, [said], {"title": {said: said}}]}),
        Fault.answer(500, said.encode(), headers={"Content-Type": "text/plain"}),
        Fault.answer(500, said),
        Fault.answer(400, {"errors": [{"detail": {"given": {"preview": TEXT}}}]}),
        Fault.answer(400, {"errors": [{"detail": f"{TEXT!s} is odd"}, {"message": json.dumps(TEXT)}]}),
        Fault.answer(429, {"message": said}, headers={"Retry-After": "3600", "X-Amz-Cf-Id": said}),
        Fault.answer(302, said.encode(), headers={"Location": f"https://{key}.example/"}),
        Fault.answer(201, {"data": {"id": "", "attributes": {"preview": TEXT}}}),
        Fault.answer(201, [said]),
        Fault.answer(400, {"errors": said}, reason=key),
        Fault.close(),
    ]


def test_neither_key_nor_text_is_in_any_error_or_log(
    kustomer: Kustomer, run: Step, message: Body, auth: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where the server throws them back, in any field of any error."""
    for fault in echoes(auth["apiKey"]):
        kustomer.fault(fault)
        error = run({**message, "preview": TEXT, "subject": TEXT}).failed
        assert spilled(error, auth["apiKey"], TEXT) == [], fault
    shown = "".join(capsys.readouterr())
    assert auth["apiKey"] not in shown
    assert "4111" not in shown


KEYS = {
    "a web token": "eyJhbGciOiJIUzI1NiJ9.eyJpZCI6IjY1YTFiMmMzZDRlIn0.q-Zt_8kLmN0pQrStUvWxYz12345",
    "digits and letters": "5f0c9d2e7a1b4c6d8e0f2a4b6c8d0e1f3a5b7c9d",
    "every sign": "ab+cd/ef=gh~ij-kl_mn.op:qr;st!uv$wx*yz,01",
}
# A shorter piece is no longer a secret, and may be a word.
PIECE = 12

# What touches a piece, or the whole. Some of it is what a key is made of.
TOUCHES = [
    "{}",
    "token={}",
    "/tokens/{}",
    "-{}",
    "{}...",
    "...{}",
    "\u2026{}\u2026",
    "x{}",
    "{}x",
    "x{}x",
    "9{}9",
    "_{}_",
    "+{}+",
    "~{}~",
    "={}=",
    ".{}.",
    "\u00e9{}\u00e9",
    "\u4e16{}\u754c",
    "\u0301{}\u0301",
    "{}\u0301",
    '"{}"',
    "({})",
    "<{}>",
    "%20{}%20",
    "{0}{0}",
    "{0},{0}",
    "{0}-{0}",
    "Bearer {}",
    "https://user:{}@api.kustomerapp.com/",
    "{}@acme.example",
    "a-word-of-another-kind/{}/a-word-of-another-kind",
    "x" * 990 + "{}",
    "x" * 985 + "{}" + "x" * 30,
]


def pieces(key: str) -> list[str]:
    """The whole key, and pieces of its beginning, middle and end."""
    middle = len(key) // 2
    return [key, key[:-1], key[1:], key[:PIECE], key[-PIECE:], key[middle - 6 : middle + 6], key[5 : middle + 5]]


def told_of(key: str, text: str) -> set[str]:
    """The pieces of a key that are long enough to matter, and stand in a text."""
    return {piece for at in range(len(key) - PIECE + 1) if (piece := key[at : at + PIECE]) in text}


def echo(said: str) -> Fault:
    """A refusal that says this everywhere."""
    reason: Any = {"code": said, "title": said, "detail": said, "source": {"pointer": said}}
    headers = {"x-request-id": said} if said.isascii() else {}
    return Fault.answer(400, {"errors": [reason, said, {"detail": {said: [said]}}]}, headers)


@pytest.mark.parametrize("touch", TOUCHES, ids=lambda touch: repr(touch)[:20])
@pytest.mark.parametrize("name", KEYS)
def test_no_long_piece_of_a_key_is_told(
    kustomer: Kustomer, run: Step, message: Body, capsys: pytest.CaptureFixture[str], name: str, touch: str
) -> None:
    """Nor the whole, and what stands around it is."""
    key = KEYS[name]
    for piece in pieces(key):
        kustomer.fault(echo(f"before {touch.format(piece)} after"))
        error = run(message, apiKey=key).failed
        assert told_of(key, shown(error, "".join(capsys.readouterr()))) == set(), piece
        assert "before" in str(error)
        assert len(touch) > 100 or "after" in str(error)


def test_what_only_resembles_a_key_is_told(kustomer: Kustomer, run: Step, message: Body) -> None:
    """Long words, ids and addresses are what one looks for the mistake by."""
    words = ["/properties/custom/additionalProperties", "65a1b2c3d4e5f60718293a4b", "org.permission.message.create"]
    words += [KEYS["a web token"][: PIECE - 1] + "-something-else", KEYS["a web token"].upper()]
    kustomer.fault(Fault.answer(400, {"errors": [{"title": word} for word in words]}))
    error = run(message, apiKey=KEYS["a web token"]).failed
    assert [reason["title"] for reason in error.errors] == words


TEXTS = {
    "a sentence": "My card number is 4111 1111 1111 1111",
    "a word": "Donaudampfschifffahrt",
    "quotes and backslashes": r'He said "four" \ five, and left',
    "no ASCII": "Gr\u00fc\u00dfe aus \u4e16\u754c \U0001f600",
    "signs of patterns": "(a+b)*[c-d]? {e}|^f$.",
}


@pytest.mark.parametrize("touch", TOUCHES, ids=lambda touch: repr(touch)[:20])
@pytest.mark.parametrize("name", TEXTS)
def test_no_text_is_told(
    kustomer: Kustomer,
    run: Step,
    message: Body,
    capsys: pytest.CaptureFixture[str],
    name: str,
    touch: str,
) -> None:
    """As it was given, and as JSON."""
    text = TEXTS[name]
    for form in (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]):
        kustomer.fault(echo(touch.replace("{0}", "{}").replace("{}", form)))
        error = run(message | {"preview": text}).failed
        log = "".join(capsys.readouterr())
        seen = shown(error, log) + "".join(str(each) for reason in error.errors for each in reason.values())
        assert text not in seen
        assert form not in seen


def test_short_words_are_masked_as_words_only(kustomer: Kustomer, run: Step, message: Body) -> None:
    """A message that says "test" doesn't eat into what Kustomer says about the latest attestation."""
    kustomer.fault(Fault.answer(400, {"errors": [{"title": "The latest attestation of test fails"}]}))
    assert "The latest attestation of [...] fails" in str(run({**message, "preview": "test"}).failed)


def test_no_piece_of_a_key_is_told_by_an_upload_s_host(
    kustomer: Kustomer, auth: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """It never got the key, but who knows who is behind it."""
    key = auth["apiKey"]
    for piece in pieces(key):
        said = f"token={piece} /tokens/{piece} x{piece}x"
        kustomer.fault(Fault.answer(403, xml("AccessDenied", said), {"x-amz-request-id": said}, at=UPLOAD_PATH))
        with pytest.raises(KustomerError) as caught:
            upload(auth, {"content": "AAAA", "name": "a.txt"})  # type: ignore[arg-type]
        assert told_of(key, shown(caught.value, "".join(capsys.readouterr()))) == set(), piece


def test_what_is_hidden_meanwhile_is_not_told() -> None:
    """Files are uploaded by threads, each of which hides what its form holds."""

    class Text(str):
        """Another thread's turn comes while this is made ready."""

        def __len__(self) -> int:
            if not redact.hides("a signature"):
                redact.hide("a signature")
            return super().__len__()

    redact = Redactor("of no importance")
    redact.hide(Text("a message"))
    assert redact("a message") == "[...]"
    assert redact("said of a signature") == "said of [...]"


# What is given


def test_names_that_look_like_a_secret_are_not_shown(run: Step, message: Body, auth: Body) -> None:
    """A text or a key that was put where a field's name belongs stays inside."""
    error = run({**message, TEXT: "x", "location": {TEXT: float("nan")}}, **{auth["apiKey"]: "x"}).failed
    assert spilled(error, TEXT, auth["apiKey"]) == []
    assert len(error.errors) == 3


@pytest.mark.parametrize("key", ["sec ret-key-1", "secret\nkey-1", "secret-kéy-1", "secret-key-1\0"])
def test_malformed_key_is_not_shown(run: Step, message: Body, key: str) -> None:
    """The libraries below print a key that doesn't fit into a header: it must not get there."""
    assert spilled(run(message, apiKey=key).failed, key, key[:6]) == []


def test_wrong_values_are_not_quoted(run: Step, message: Body) -> None:
    """A text that was put into the wrong field by mistake stays inside too."""
    wrong = dict.fromkeys(("channel", "direction", "conversation", "sentAt", "auto", "size", "meta", "queue"), TEXT)
    error = run({**message, **wrong}).failed
    assert len(error.errors) == len(wrong)
    assert spilled(error, TEXT) == []


def test_errors_carry_no_request_along(kustomer: Kustomer, run: Step, message: Body) -> None:
    """A cause or a context would hold the library's request, and with it the key, for any tool that looks."""
    kustomer.fault(Fault.close())
    for error in (run(message).failed, run(message, baseUrl="https://nowhere.invalid").failed):
        assert error.__cause__ is None
        assert error.__context__ is None


# Where the key goes


def test_netrc_of_the_worker_does_not_replace_the_key(
    kustomer: Kustomer, run: Step, message: Body, auth: Body, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A login that happens to lie on the worker is not sent in place of the resource's key."""
    (tmp_path / "netrc").write_text("default login someone password else\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    run(message)
    assert kustomer.posts[0].headers["Authorization"] == f"Bearer {auth['apiKey']}"


def test_proxy_never_sees_a_key_in_plain_text(
    kustomer: Kustomer, run: Step, message: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain http is for this machine only, and so goes there straight."""
    with Kustomer() as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert run(message).stored == 1
        assert proxy.requests == []


def test_cookies_of_one_key_are_not_sent_with_another(kustomer: Kustomer, run: Step, message: Body) -> None:
    """A server that tells callers apart by cookie can't mix them up."""
    kustomer.fault(Fault.answer(400, {}, headers={"Set-Cookie": "session=1; Path=/"}))
    assert run(message).failed
    run(message, apiKey=kustomer.keys["admin"])
    assert "Cookie" not in kustomer.posts[1].headers


# As a job


def test_job_shows_neither_key_nor_text(kustomer: Kustomer, windmill: Workspace, message: Body, auth: Body) -> None:
    """What Windmill stores of a failed job, its logs and its stack holds no secret."""
    kustomer.fault(Fault.answer(400, {"errors": [{"title": f"{auth['apiKey']} {TEXT}"}]}))
    args = {"auth": auth, "body": {**message, "preview": TEXT}}
    job = worker.run("f/kustomer/create_message", args, workspace=windmill)
    stored = json.dumps([job.error, job.logs])
    assert not job.ok
    assert auth["apiKey"] not in stored
    assert TEXT not in stored

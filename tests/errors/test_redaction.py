"""Neither the key nor a long piece of it nor a message's text is told, wherever it stands and whatever touches it."""

import json
import traceback
from typing import Any

import pytest

from f.kustomer.errors import KustomerError, Redactor
from f.kustomer.upload_attachment import main as upload
from tests.conftest import Body, Step
from tests.other_steps.test_upload_attachment import xml
from tests.standin.kustomer import UPLOAD_PATH, Fault, Kustomer

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


def shown(error: KustomerError, log: str) -> str:
    """All that anybody sees of an error."""
    data = [json.dumps(vars(error)), json.dumps(vars(error), ensure_ascii=False)]
    return "\n".join([str(error), repr(error), *data, *traceback.format_exception(error), log])


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

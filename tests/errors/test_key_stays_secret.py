"""The key goes nowhere but to Kustomer, and neither key nor text comes back out."""

import json
import pathlib
import traceback

import pytest

from f.kustomer.errors import KustomerError
from f.kustomer.inputs import Connection
from tests.conftest import Body, Step
from tests.standin import worker
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

TEXT = 'My card number is\n"4111 1111 1111 1111", please hélp'


def spilled(error: KustomerError, *secrets: str) -> list[str]:
    """The secrets that are in an error's text, its data, its repr or its traceback, as they are or escaped."""
    shown = [str(error), repr(error), json.dumps(vars(error)), *traceback.format_exception(error)]
    parts = [part for secret in secrets for part in secret.split('"')]
    return [part for part in parts if any(part in each or json.dumps(part)[1:-1] in each for each in shown)]


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


def test_names_that_look_like_a_secret_are_not_shown(run: Step, message: Body, auth: Body) -> None:
    """A text or a key that was put where a field's name belongs stays inside."""
    error = run({**message, TEXT: "x", "location": {TEXT: float("nan")}}, **{auth["apiKey"]: "x"}).failed
    assert spilled(error, TEXT, auth["apiKey"]) == []
    assert len(error.errors) == 3


def test_short_words_are_masked_as_words_only(kustomer: Kustomer, run: Step, message: Body) -> None:
    """A message that says "test" doesn't eat into what Kustomer says about the latest attestation."""
    kustomer.fault(Fault.answer(400, {"errors": [{"title": "The latest attestation of test fails"}]}))
    assert "The latest attestation of [...] fails" in str(run({**message, "preview": "test"}).failed)


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


def test_connection_does_not_show_its_key() -> None:
    """A debugger or a log that prints it learns nothing."""
    assert "secret-key" not in repr(Connection("https://api.kustomerapp.com", "secret-key"))


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
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert run(message).stored == 1
        assert proxy.requests == []


def test_cookies_of_one_key_are_not_sent_with_another(kustomer: Kustomer, run: Step, message: Body) -> None:
    """A server that tells callers apart by cookie can't mix them up."""
    kustomer.fault(Fault.answer(400, {}, headers={"Set-Cookie": "session=1; Path=/"}))
    assert run(message).failed
    run(message, apiKey=kustomer.keys["admin"])
    assert "Cookie" not in kustomer.posts[1].headers


def test_job_shows_neither_key_nor_text(kustomer: Kustomer, message: Body, auth: Body) -> None:
    """What Windmill stores of a failed job, its logs and its stack holds no secret."""
    kustomer.fault(Fault.answer(400, {"errors": [{"title": f"{auth['apiKey']} {TEXT}"}]}))
    with Workspace(scripts_from=worker.ROOT) as workspace:
        body = {**message, "preview": TEXT}
        job = worker.run("f/kustomer/create_message", {"auth": auth, "body": body}, workspace=workspace)
    stored = json.dumps([job.error, job.logs])
    assert not job.ok
    assert auth["apiKey"] not in stored
    assert TEXT not in stored

"""Any step can be tried from the terminal, on input of one's own and without an account (`make try`)."""

import json
import os
import pathlib
import re
import shlex
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from f.kustomer.shared.inputs import Field
from tests import try_step
from tests.lock import ROOT

# A message with nothing else than what is needed, in the conversation that is there.
MESSAGE = {"channel": "email", "direction": "in", "app": "acme-inbox", "conversation": "CONVERSATION"}

Try = Callable[..., tuple[int, str]]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Try:
    """Tries a step with a body, given as text or as what JSON can say, and returns the status and what is printed."""

    def run(step: str, body: Any = "") -> tuple[int, str]:
        monkeypatch.setenv("STEP", step)
        monkeypatch.setenv("TRY_BODY", body if isinstance(body, str) else json.dumps(body))
        status = try_step.main()
        return status, capsys.readouterr().out

    return run


def make(*words: str) -> subprocess.CompletedProcess[str]:
    """Run make as somebody types it, without setting anything up anew."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    ready = ("-o", ".venv/ready", "-o", ".venv-job/ready")
    return subprocess.run(
        ["make", *ready, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def answer(output: str) -> Any:
    """Return the step's answer as it is printed."""
    return json.JSONDecoder().raw_decode(output.partition("\nAnswer\n")[2])[0]


@pytest.mark.parametrize(
    "text",
    [
        """It's "quoted", `twice` and \\ once""",
        "It costs $5, or $(date), $HOME, ${HOME}, $$ and 100 %; # 1042 @you",
        "Grüße, 東京 🪔",
        "one\ntwo\tthree",
    ],
    ids=["quotes", "shell and make", "unicode", "lines"],
)
def test_text_reaches_the_timeline_as_it_is_typed(text: str) -> None:
    """Quotes, dollars, unicode and line breaks survive the shell's and make's hands."""
    body = json.dumps({**MESSAGE, "preview": text}, ensure_ascii=False, indent=1)
    result = make("try", "STEP=create_message", f"BODY={body}")
    assert result.returncode == 0, result.stderr
    assert answer(result.stdout)["data"]["attributes"]["preview"] == text
    assert " ".join(text.split()) in " ".join(result.stdout.rpartition("Timeline")[2].split())


@pytest.mark.parametrize("step", try_step.steps())
def test_example_that_is_shown_can_be_typed(step: str, tried: Try) -> None:
    """What a step shows without a body runs as it stands; a step without a body runs at once."""
    status, output = tried(step)
    assert status == 0
    if command := re.search(r"^make try .*^}'$", output, re.DOTALL | re.MULTILINE):
        _, _, named, body = shlex.split(command[0])
        assert named == f"STEP={step}"
        status, output = tried(step, body.removeprefix("BODY="))
    assert status == 0, output
    assert answer(output)


class Letter:
    """A body with all that a form has."""

    customer: str = Field(example="65a1b2c3d4e5f60718293a50")
    text: str = Field(example="Hello")
    size: int
    file: dict[str, Any] = Field(format="resource-s3_object")
    tags: list[str] = Field(example=["blue"])
    note: str = Field(example="a detail")
    app: str = Field(example="acme-inbox", required=True)


def test_example_has_the_first_fields_and_those_that_are_needed() -> None:
    """It is short; ids are those of what is there, and a file is one that is there."""
    expected = {"customer": "CUSTOMER", "text": "Hello", "file": {"s3": "inbox/x.csv"}, "app": "acme-inbox"}
    assert try_step.example(Letter, "inbox/x.csv") == expected


def test_new_message_is_marked_on_the_timeline(tried: Try) -> None:
    """The conversation's earlier messages are shown too, without the mark."""
    status, output = tried("create_message", {**MESSAGE, "subject": "Order 1042", "preview": "Where is it?"})
    lines = output.rpartition("Timeline of conversation ")[2].splitlines()[1:]
    marked = [line for line in lines if line.startswith("*")]
    assert status == 0
    assert len(marked) == 1
    assert marked[0].endswith("→ email  acme-inbox  Order 1042: Where is it?")
    assert len([line for line in lines if line.strip()]) == 3


def test_message_without_a_conversation_is_shown_too(tried: Try) -> None:
    """It is on no timeline of a conversation, but it was recorded."""
    body = {"channel": "sms", "direction": "in", "app": "acme-inbox", "customer": "CUSTOMER", "preview": "Hello"}
    status, output = tried("create_message", body)
    assert status == 0
    assert re.search(r"In no conversation\n\* .*Hello", output)


def test_new_conversation_is_shown(tried: Try) -> None:
    """What a step made is shown instead of what was there before, even if it is empty."""
    status, output = tried("find_conversation", {"externalId": "t-1", "create": True, "customer": "CUSTOMER"})
    assert status == 0
    assert f"Timeline of conversation {answer(output)['id']} " in output
    assert output.count("Timeline of conversation") == 1


def test_placeholders_stand_for_ids_at_every_depth() -> None:
    """Text that merely contains a placeholder stays as it is."""
    ids = {"CUSTOMER": "c1", "CONVERSATION": "v1"}
    body = {"customer": "CUSTOMER", "rows": [{"conversation": "CONVERSATION"}], "text": "Dear CUSTOMER", "size": 1}
    expected = {"customer": "c1", "rows": [{"conversation": "v1"}], "text": "Dear CUSTOMER", "size": 1}
    assert try_step.filled_in(body, ids) == expected


def test_error_is_shown_as_windmill_shows_it(tried: Try) -> None:
    """Its name, its message and its extra; the exit status says that the job failed."""
    status, output = tried("create_message", {**MESSAGE, "channel": "emial"})
    shown = output.partition("\nError\n")[2]
    extra = json.JSONDecoder().raw_decode(shown[shown.index("{\n") :])[0]["extra"]
    assert status == 1
    assert shown.startswith("InvalidInput: This run sent nothing. To correct: body.channel must be one of ")
    assert (extra["outcome"], extra["retryable"], extra["errors"][0]["path"]) == ("not_sent", False, "body.channel")
    assert "Answer" not in output


def test_body_may_come_from_a_file(tried: Try, tmp_path: pathlib.Path) -> None:
    """Also with the mark in front that some editors leave."""
    file = tmp_path / "event.json"
    file.write_text(json.dumps({**MESSAGE, "preview": "Grüße"}, ensure_ascii=False), encoding="utf-8-sig")
    status, output = tried("create_message", f"@{file}")
    assert status == 0
    assert answer(output)["data"]["attributes"]["preview"] == "Grüße"


def test_own_file_is_in_the_object_storage(tried: Try, tmp_path: pathlib.Path) -> None:
    """A path of this machine may be given where a file of the storage is asked for."""
    file = tmp_path / "photo.jpg"
    file.write_bytes(b"not really a photo")
    status, output = tried("upload_attachment", {"file": {"s3": str(file)}})
    assert status == 0
    assert (answer(output)["name"], answer(output)["contentLength"]) == ("photo.jpg", 18)


@pytest.fixture
def history(tmp_path: pathlib.Path) -> pathlib.Path:
    """A file of one's own: 40 messages in 10 conversations, of which the first has 16, and 8 rows without a date."""
    rows = [
        f"m-{number},t-{number % 10 if number > 13 else 0},ada@example.com,email,in,{date},Text {number}\n"
        for number, date in enumerate(["2019-05-04T08:00:00Z"] * 40 + [""] * 8)
    ]
    file = tmp_path / "my.csv"
    file.write_text("messageId,threadId,email,channel,direction,sentAt,text\n" + "".join(rows), encoding="utf-8")
    return file


def test_own_history_can_be_checked(tried: Try, history: pathlib.Path) -> None:
    """What is wrong is told, with its first row, and nothing is recorded."""
    status, output = tried("import_messages", {"file": {"s3": str(history)}, "app": "x", "check": True})
    result = answer(output)
    assert status == 0
    assert (result["rows"], result["left"], result["refused"], result["threads"]) == (48, 40, 8, 10)
    assert [(each["rows"], each["example"], each["path"]) for each in result["reasons"]] == [(8, 42, "sentAt")]
    assert "Timeline" not in output


def test_own_history_is_shown_on_some_timelines_with_what_is_to_be_corrected(tried: Try, history: pathlib.Path) -> None:
    """The first conversations of the file, with the year of their messages; the rest is counted.

    The key is one that may set dates, as an import needs it.
    """
    status, output = tried("import_messages", {"file": {"s3": str(history)}, "app": "x"})
    timelines = output.split("Timeline of conversation ")[1:]
    assert status == 0
    assert (answer(output)["created"], answer(output)["refused"]) == (40, 8)
    assert answer(output)["remarks"] == []
    assert re.search(r"my\.csv\.import/refused-0000-\w+\.ndjson in the object storage\n\{", output)
    assert "And 5 more rows." in output
    assert [each.count("* 04 May 2019 08:00  → email  x ") for each in timelines] == [10, 3, 3]
    assert "And 6 more lines." in timelines[0]
    assert output.endswith("And 7 more conversations.\n\n")
    assert "eyJ" not in output
    assert len(output.splitlines()) < 100


@pytest.mark.parametrize("refused", [0, 3])
def test_report_is_shown_as_windmill_shows_it(refused: int, tried: Try) -> None:
    """As lines of Markdown, whether it is the step's answer or its error."""
    body = try_step.EXAMPLES["import_report"]
    (part,) = body["rounds"][0]["parts"]
    counted = {**part, "created": part["created"] - refused, "refused": refused}
    status, output = tried("import_report", {**body, "rounds": [{"parts": [counted]}]})
    assert status == (1 if refused else 0)
    assert "of 300 rows are on Kustomer's timelines\n\n| rows | |\n| ---: | --- |\n" in output


@pytest.mark.parametrize("step", ["", "create_mesage", "client"])
def test_unknown_step_names_the_steps(step: str, tried: Try) -> None:
    """So does none; a script that has no main is no step."""
    status, output = tried(step, "{}")
    assert status == (2 if step else 0)
    assert re.findall(r"make try STEP=(\w+)", output) == list(try_step.steps())
    assert "client" not in try_step.steps()


def test_step_may_be_given_as_a_path(tried: Try) -> None:
    """As the shell completes it."""
    status, output = tried("f/kustomer/check_connection.py")
    assert (status, answer(output)["name"]) == (0, "full")


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            '{"a": 1, "b" 2}',
            'BODY is not JSON, line 1, column 14: Expecting \':\' delimiter\n\n  {"a": 1, "b" 2}\n' + " " * 15 + "^",
        ),
        ('{"a": 1,\n "b": }', 'line 2, column 7: Expecting value\n\n   "b": }\n' + " " * 8 + "^"),
        ('{"text": "' + "x" * 500 + '" oops}', 'x" oops}\n' + " " * 61 + "^"),
        ("{'a': 1}", "line 1, column 2: Expecting property name enclosed in double quotes"),
        ('{"a": NaN}', "NaN is no JSON value"),
        ("[" * 100_000, "BODY is not JSON: "),
        ("@no/such/file.json", "no/such/file.json can't be read: "),
    ],
)
def test_wrong_json_says_where(body: str, told: str, tried: Try) -> None:
    """Nothing runs; the place is pointed at, also in a long line."""
    status, output = tried("create_message", body)
    assert status == 2
    assert told in output
    assert "Log" not in output
    assert max(len(line) for line in output.splitlines()) < 160


@pytest.mark.parametrize("body", ["[]", '"text"', "3", "null"])
def test_body_that_is_no_object_is_left_to_the_step(body: str, tried: Try) -> None:
    """It says what is wrong better than anybody else."""
    status, output = tried("create_message", body)
    assert status == 1
    assert re.search(r"InvalidInput: This run sent nothing. To correct: body (must be an object|is missing)", output)


@pytest.mark.parametrize(
    ("step", "body"),
    [
        ("create_message", {**MESSAGE, "preview": "Hello"}),
        ("create_message", {**MESSAGE, "channel": "emial"}),
        ("check_connection", ""),
        ("upload_attachment", {"file": {"s3": "not/there"}}),
    ],
)
def test_no_key_is_printed(step: str, body: Any, tried: Try) -> None:
    """Every key of the stand-in is a JSON Web Token, as Kustomer's are, and those begin alike."""
    _, output = tried(step, body)
    assert "Timeline of conversation" in output
    assert "eyJ" not in output


def test_half_a_character_is_shown_as_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken emoji, or a terminal that knows ASCII only, is no reason to show nothing."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    body = json.dumps({**MESSAGE, "preview": "Grüße \ud83e"})
    result = make("try", "STEP=create_message", f"BODY={body}")
    assert result.returncode == 0, result.stderr
    assert "\\xfc\\xdfe \\ud83e" in result.stdout.rpartition("Timeline")[2]


def test_make_alone_lists_every_target_with_a_line_on_it() -> None:
    """And does nothing else."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split()
    lines = make().stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["make", target] for target in targets]
    assert all(len(line.split()) > 4 for line in lines)

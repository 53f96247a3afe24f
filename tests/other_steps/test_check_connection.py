"""Checking a key says truly whose it is and which steps it may run, changes nothing, and shows no part of the key."""

import base64
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from f.kustomer import check_connection
from f.kustomer.history.jobs import clock
from f.kustomer.shared.errors import (
    AccessDenied,
    InvalidInput,
    KustomerError,
    NoAnswer,
    OddAnswer,
    RateLimited,
    ServerFailed,
)
from tests import lock, try_step
from tests.conftest import Body, spilled
from tests.other_steps.conftest import Run, Step
from tests.standin import worker
from tests.standin.bulk import Bulk
from tests.standin.kustomer import Fault, Kustomer
from tests.standin.windmill import Workspace

check: Callable[[Any], Body] = check_connection.main
DO = try_step.steps()

LOOK = "GET /v1/auth/tokens/current"
FIELDS = {"name", "organisation", "user", "host", "expires", "roles", "steps", "limit", "details"}


@pytest.fixture(autouse=True)
def import_waits(waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """An import that would have waited finds that time has passed."""
    monkeypatch.setattr(clock, "now", lambda: sum(waits))


@pytest.fixture
def run(kustomer: Kustomer, auth: Body) -> Step:
    """Runs the step, and holds that it asks for the key and for nothing else."""

    def audited(**other: object) -> Run:
        before = len(kustomer.requests)
        result, error = None, None
        try:
            result = check({**auth, **other})
        except KustomerError as raised:
            error = raised
            assert (error.outcome, error.attempts) == ("not_sent", len(kustomer.requests) - before)
        asked = [f"{seen.method} {seen.path}" for seen in kustomer.requests[before:]]
        assert set(asked) <= {LOOK}
        assert kustomer.messages + kustomer.conversations + kustomer.customers + kustomer.attachments == []
        if result:
            assert set(result) == FIELDS
            assert json.loads(json.dumps(result, allow_nan=False)) == result
        return Run(result, error, asked, 0)

    return audited


def told(attributes: object = None, relationships: object = None, headers: dict[str, str] | None = None) -> Fault:
    """An answer to the look-up that says just this of a key."""
    data = {"type": "token", "id": "current", "attributes": attributes, "relationships": relationships}
    return Fault.answer(200, {"data": data}, headers, on="GET")


def steps(result: Body) -> dict[str, Body]:
    """What is said of each step, by the last part of its path."""
    return {each["step"].removeprefix("f/kustomer/"): each for each in result["steps"]}


# What is said of a key


def test_all_that_is_known_of_a_key_is_told(kustomer: Kustomer, run: Step) -> None:
    """In one request, with the names that the docstring gives."""
    roles = ["org.permission.customer.read", "org.permission.message.create"]
    key = kustomer.key(*roles, name="The shop's", cidr="203.0.113.0/24", createdAt="2026-01-02T03:04:05.000Z")
    found = run(apiKey=key)
    assert found.asked == [LOOK]
    result = found.found
    assert len(str(result["user"])) == 24
    result["details"]["userAgent"] = result["details"]["updatedAt"] = result["details"]["lastAccessedAt"] = ""
    assert {name: each for name, each in result.items() if name not in ("user", "steps")} == {
        "name": "The shop's",
        "organisation": {"id": kustomer.org, "name": None},
        "host": kustomer.url,
        "expires": None,
        "roles": roles,
        "limit": {"requests": 1000, "left": 999},
        "details": {
            "ipAddress": "127.0.0.1",
            "userAgent": "",
            "createdAt": "2026-01-02T03:04:05.000Z",
            "updatedAt": "",
            "lastAccessedAt": "",
            "cidr": "203.0.113.0/24",
        },
    }
    assert [each["step"] for each in result["steps"]] == [
        "f/kustomer/check_connection",
        "f/kustomer/create_message",
        "f/kustomer/find_conversation",
        "f/kustomer/find_customer",
        "f/kustomer/import_messages",
        "f/kustomer/import_report",
        "f/kustomer/record_message",
        "f/kustomer/upload_attachment",
    ]
    assert steps(result)["find_customer"] == {
        "step": "f/kustomer/find_customer",
        "may_run": True,
        "missing": [{"role": "org.permission.customer.create", "use": "make a new customer"}],
    }


def test_every_step_of_this_repository_is_told_of() -> None:
    """And no other: whoever adds one says what it takes."""
    assert set(check_connection.STEPS) == {script.stem for script in lock.STEPS}


@pytest.mark.parametrize("spelling", ["Bearer {}", " {}\n", "bearer  {} ", "\tBearer {}"])
def test_a_key_may_be_pasted_with_what_is_around_it(auth: Body, run: Step, spelling: str) -> None:
    """Blanks and Bearer are taken off."""
    assert run(apiKey=spelling.format(auth["apiKey"])).found["name"] == "full"


@pytest.mark.parametrize("untouched", [None, "", [], {}], ids=repr)
def test_a_resource_with_untouched_fields_will_do(run: Step, untouched: object) -> None:
    """The resource's form submits empty fields as well."""
    assert run(orgName=untouched).found["name"] == "full"


@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ({"apiKey": ""}, ["auth.apiKey"]),
        ({"apiKey": None, "baseUrl": "http://api.acme.example"}, ["auth.apiKey", "auth.baseUrl"]),
        ({"apiKey": "two words", "orgName": "a b", "token": "x"}, ["auth.apiKey", "auth.orgName", "auth.token"]),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_resource_is_told_at_once(run: Step, given: Body, paths: list[str]) -> None:
    """Without asking anybody."""
    found = run(**given)
    assert isinstance(found.failed, InvalidInput)
    assert sorted(str(each["path"]) for each in found.failed.errors) == paths
    assert found.asked == []


# Which steps it may run

PERMISSIONS = [
    "org.permission.message.create",
    "org.permission.message.read",
    "org.permission.customer.create",
    "org.permission.customer.read",
    "org.permission.conversation.create",
    "org.permission.conversation.read",
    "org.permission.note.create",
    "org.permission.bulk.read",
]
LEGACY = [
    "org.user.message.write",
    "org.user.message.read",
    "org.user.customer.write",
    "org.user.customer.read",
    "org.user.conversation.write",
    "org.user.conversation.read",
    "org.user.note.write",
    "org.user.bulk.read",
]
USELESS = ["org.permission.conversation.update", "org.permission.attachment.read", "org.user.attachment.read"]
ROLES = {
    "none": [],
    **{role: [role] for role in PERMISSIONS + LEGACY + USELESS},
    "all permissions": PERMISSIONS,
    "all legacy": LEGACY,
    "all permissions and dates": [*PERMISSIONS, "org.admin"],
    **{f"all but {role}": [each for each in PERMISSIONS if each != role] for role in PERMISSIONS},
    "mixed": ["org.user.message.write", "org.permission.customer.read", "org.user.conversation.read"],
}
every_kind_of_key = pytest.mark.parametrize("roles", ROLES.values(), ids=ROLES)

# What a step does, with a resource and the id of a customer who is there; False is for doing it in vain.
Deed = Callable[[Any, str], object]


def record(auth: Any, conversation: str = "", attachments: Sequence[Any] = ()) -> str:
    """Records the same message each time; returns its id."""
    body: Any = {"channel": "chat", "direction": "in", "app": "acme", "externalId": "77"}
    body |= {"conversation": conversation, "attachments": list(attachments)}
    return str(DO["create_message"](auth, body)["data"]["id"])


def record_from_scratch(auth: Any, _: str) -> None:
    """Does what the flow does for somebody who writes for the first time, and sends a file."""
    customer = DO["find_customer"](auth, {"externalId": "customer-77", "create": True})["id"]
    thread: Any = {"externalId": "thread-77", "create": True, "customer": customer}
    attachment = DO["upload_attachment"](auth, {"content": "SGVsbG8=", "name": "hello.txt"})
    record(auth, DO["find_conversation"](auth, thread)["id"], [attachment])


def record_once(auth: Any, _: str) -> bool:
    """Records a message in two runs: in vain, if it is there twice then."""
    return record(auth) == record(auth)


def import_one(auth: Any, _: str) -> None:
    """Imports one old message."""
    row = {"messageId": "77", "threadId": "77", "email": "ada@example.com", "sentAt": "2020-01-31T09:30:00Z"}
    content = base64.b64encode(json.dumps(row | {"text": "Hello", "channel": "chat", "direction": "in"}).encode())
    result = DO["import_messages"](auth, {"content": content.decode(), "app": "acme"})
    assert result["created"] == 1


RUNS: dict[str, Deed] = {
    "check_connection": lambda auth, _: check(auth),
    "create_message": lambda auth, _: record(auth),
    "find_conversation": lambda auth, _: DO["find_conversation"](auth, {"externalId": "thread-77"}),
    "find_customer": lambda auth, _: DO["find_customer"](auth, {"externalId": "customer-77"}),
    "import_messages": import_one,
    "import_report": lambda auth, _: DO["import_report"]({"parts": [{"rows": 0}]}),
    "record_message": record_from_scratch,
    "upload_attachment": lambda auth, _: DO["upload_attachment"](auth, {"content": "SGVsbG8=", "name": "hello.txt"}),
}
# What a step can do besides.
DOES: dict[str, Deed] = {
    "create_message": record_once,
    "find_conversation": lambda auth, customer: DO["find_conversation"](
        auth, {"externalId": "thread-77", "create": True, "customer": customer}
    ),
    "find_customer": lambda auth, _: DO["find_customer"](auth, {"externalId": "customer-77", "create": True}),
    "record_message": record_once,
}


def can(kustomer: Kustomer, key: str, *deeds: Deed) -> bool:
    """Whether Kustomer lets a key do all of this, each where nothing is left of the others."""
    kustomer.jobs.bulk = Bulk(delay=0, per_item=0)  # no clock is held here
    for deed in deeds:
        kustomer.clear()
        try:
            done = deed({"apiKey": key, "baseUrl": kustomer.url}, kustomer.customer)
        except AccessDenied:
            done = False
        kustomer.clear()
        if done is False:
            return False
    return True


@every_kind_of_key
def test_a_step_may_run_exactly_when_it_runs(kustomer: Kustomer, run: Step, roles: list[str]) -> None:
    """The claim is held against what each step really comes to with the key."""
    key = kustomer.key(*roles)
    said = steps(run(apiKey=key).found)
    assert {name: each["may_run"] for name, each in said.items()} == {
        name: can(kustomer, key, deed) for name, deed in RUNS.items()
    }


@every_kind_of_key
def test_nothing_is_missing_exactly_when_a_step_does_all_it_can(
    kustomer: Kustomer, run: Step, roles: list[str]
) -> None:
    """Such as making a customer, besides finding one, or recording a message once in two runs."""
    key = kustomer.key(*roles)
    said = steps(run(apiKey=key).found)
    assert {name: said[name]["missing"] == [] for name in DOES} == {
        name: can(kustomer, key, RUNS[name], deed) for name, deed in DOES.items()
    }


@pytest.mark.parametrize("roles", [[], ROLES["mixed"], PERMISSIONS[1:], ["org.user.message.write"]], ids=str)
def test_the_missing_roles_are_all_that_a_step_takes(kustomer: Kustomer, run: Step, roles: list[str]) -> None:
    """A key with them does all that the step can; without any one of them, that one is still missing."""
    for name, each in steps(run(apiKey=kustomer.key(*roles)).found).items():
        missing = [need["role"] for need in each["missing"]]
        assert can(kustomer, kustomer.key(*roles, *missing), RUNS[name], DOES.get(name, RUNS[name])), name
        for lacking in missing:
            key = kustomer.key(*roles, *[role for role in missing if role != lacking])
            again = steps(run(apiKey=key).found)[name]["missing"]
            assert [need["role"] for need in again] == [lacking], name


@pytest.mark.parametrize("name", ["full", "admin", "no_read", "no_create"])
def test_any_valid_key_can_be_checked(kustomer: Kustomer, run: Step, name: str) -> None:
    """Whatever its roles, it may ask what they are."""
    found = run(apiKey=kustomer.keys[name]).found
    assert found["name"] == name
    assert steps(found)["create_message"]["may_run"] == (name != "no_create")


EVERYTHING = set(check_connection.STEPS)
NO_ROLE = {"check_connection", "import_report"}


@pytest.mark.parametrize(
    ("roles", "may_run"),
    [
        (["org"], EVERYTHING),
        (["org.user"], EVERYTHING - {"import_messages"}),
        (["org.permission"], EVERYTHING - {"import_messages"}),
        (["org.user.message"], {"create_message", "upload_attachment"}),
        (["org.permission.message"], {"create_message", "upload_attachment"}),
        (["org.user.customer", "org.permission.conversation"], {"find_customer", "find_conversation"}),
        (["org.user.note"], {"upload_attachment"}),
        (["org.admin", "org.permission.apps", "or", "org.", "org.user.", "", "."], set()),
        (["org.permission.message.creat", "org.permission.message.create.all", "ORG", "*", "org.*"], set()),
    ],
    ids=lambda given: ",".join(sorted(given)),
)
def test_a_broader_role_holds_those_below_it(
    kustomer: Kustomer, run: Step, roles: list[str], may_run: set[str]
) -> None:
    """Older keys have such roles; what only begins alike is another role."""
    said = steps(run(apiKey=kustomer.key(*roles)).found)
    assert {name for name, each in said.items() if each["may_run"]} == may_run | NO_ROLE
    if may_run >= EVERYTHING - {"import_messages"}:
        missing = {need["role"] for each in said.values() for need in each["missing"]}
        assert missing == (set() if roles == ["org"] else {"org.admin"})


# What Kustomer leaves out, or says oddly


@pytest.mark.parametrize("attributes", [None, {}, [], ["name"], "text", 7, {"roles": None}, {"roles": "org"}], ids=str)
def test_what_nobody_says_is_none(kustomer: Kustomer, run: Step, attributes: object) -> None:
    """Of a key whose roles aren't told, nobody can say what it may run."""
    kustomer.fault(told(attributes))
    assert run(apiKey="a-key-that-says-nothing").found == {
        "name": None,
        "organisation": {"id": None, "name": None},
        "user": None,
        "host": kustomer.url,
        "expires": None,
        "roles": None,
        "steps": None,
        "limit": {"requests": None, "left": None},
        "details": {},
    }


def test_odd_roles_are_left_out(kustomer: Kustomer, run: Step) -> None:
    """Those that are text count."""
    kustomer.fault(told({"roles": [None, 7, ["org"], {"org": 1}, "org.user.customer.read"]}))
    result = run().found
    assert result["roles"] == ["org.user.customer.read"]
    assert steps(result)["find_customer"]["may_run"]


@pytest.mark.parametrize("relationships", [None, [], {}, {"org": None, "user": []}, {"org": {"data": None}}], ids=str)
def test_a_key_says_its_organisation_where_kustomer_doesn_t(
    kustomer: Kustomer, run: Step, relationships: object
) -> None:
    """It is in the key itself; where both say it, Kustomer does."""
    kustomer.fault(told({}, relationships))
    result = run(apiKey=token({"org": "1" * 24, "orgName": "acme"})).found
    assert (result["organisation"], result["user"]) == ({"id": "1" * 24, "name": "acme"}, None)
    kustomer.fault(told({}, {"org": {"data": {"id": "2" * 24}}, "user": {"data": {"id": "3" * 24}}}))
    result = run(apiKey=token({"org": "1" * 24, "user": "4" * 24})).found
    assert (result["organisation"], result["user"]) == ({"id": "2" * 24, "name": None}, "3" * 24)


@pytest.mark.parametrize(
    ("limit", "left", "expected"),
    [
        ("1000", "999", (1000, 999)),
        ("0", "0", (0, 0)),
        ("", " ", (None, None)),
        ("-1", "+1", (None, None)),
        ("1000.0", "1e3", (None, None)),
        ("1,000", "1_000", (None, None)),
        ("1000, 1000", "nan", (None, None)),
        ("unlimited", "null", (None, None)),
        ("9" * 5000, "7 left", (None, None)),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_the_limit_is_what_the_headers_say(
    kustomer: Kustomer, run: Step, limit: str, left: str, expected: tuple[int | None, int | None]
) -> None:
    """Requests a minute of the organisation, and how many are left; None where that isn't a number."""
    kustomer.fault(told({}, headers={"x-ratelimit-limit": limit, "X-RateLimit-Remaining": left}))
    assert run().found["limit"] == dict(zip(("requests", "left"), expected, strict=True))


def test_one_header_may_be_missing(kustomer: Kustomer, run: Step) -> None:
    """The other is told."""
    kustomer.fault(told({}, headers={"x-ratelimit-remaining": "7"}))
    assert run().found["limit"] == {"requests": None, "left": 7}


# When it expires


def token(payload: object) -> str:
    """A JSON Web Token that says this of itself."""
    parts = [json.dumps({"alg": "HS256", "typ": "JWT"}), payload if isinstance(payload, str) else json.dumps(payload)]
    encoded = [base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts]
    return ".".join([*encoded, "c2lnbmF0dXJl"])


@pytest.mark.parametrize(
    ("expires", "moment"),
    [
        (1_893_456_000, "2030-01-01T00:00:00Z"),
        (1_893_456_000.5, "2030-01-01T00:00:00.500000Z"),
        (0, "1970-01-01T00:00:00Z"),
        (253_402_300_799, "9999-12-31T23:59:59Z"),
    ],
)
@pytest.mark.parametrize("padding", ["", "é", "\N{PACKAGE}>?", "abc"], ids=ascii)
def test_a_key_that_is_a_json_web_token_says_when_it_expires(
    kustomer: Kustomer, run: Step, expires: float, moment: str, padding: str
) -> None:
    """In UTC, whatever the length of its parts and whatever else is in it."""
    kustomer.fault(told({}))
    assert run(apiKey=token({"orgName": padding, "exp": expires})).found["expires"] == moment


@pytest.mark.parametrize(
    "key",
    [
        "no-token",
        "a.b",
        "a.b.c",
        "..",
        "a..c",
        "eyJ.eyJ.eyJ",
        "!!!.???.***",
        token({}),
        token({"exp": None}),
        token({"exp": "1893456000"}),
        token({"exp": "2030-01-01T00:00:00Z"}),
        token({"exp": [1893456000]}),
        token({"exp": {}}),
        token({"exp": 253_402_300_800}),
        token({"exp": 10**30}),
        token({"exp": -(10**30)}),
        token({"exp": 10**400}),
        token('{"exp": NaN}'),
        token('{"exp": 1e999}'),
        token('{"exp": -Infinity}'),
        token([1893456000]),
        token("1893456000"),
        token("null"),
        token('"exp"'),
        token('{"exp": 1893456000'),
        token({"iat": 1893456000}),
    ],
    ids=lambda key: str(key)[:60],
)
def test_any_other_key_says_nothing_of_when_it_expires(kustomer: Kustomer, run: Step, key: str) -> None:
    """And works all the same."""
    kustomer.fault(told({"name": "The shop's"}))
    result = run(apiKey=key).found
    assert (result["name"], result["expires"], result["organisation"]) == (
        "The shop's",
        None,
        {"id": None, "name": None},
    )


# When it fails


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("expired", "must not be expired"),
        ("elsewhere", "belongs to another pod"),
        ("unknown", "its own organisation's host only"),
    ],
)
def test_a_key_that_is_not_let_in_is_told_with_what_to_do(kustomer: Kustomer, run: Step, key: str, advice: str) -> None:
    """Expired, of another pod, or not Kustomer's at all: nothing was changed."""
    found = run(apiKey=kustomer.keys.get(key, "not-one-of-theirs"))
    error = found.failed
    assert (type(error), error.status, error.retryable) == (AccessDenied, 401, False)
    assert str(error).startswith("401 Unauthorized")
    assert "Nothing was changed." in str(error)
    assert advice in str(error)
    assert found.asked == [LOOK]


def test_the_advice_is_in_whole_sentences(kustomer: Kustomer, run: Step) -> None:
    """Whichever parts it is put together from."""
    for name in ("expired", "elsewhere"):
        text = str(run(apiKey=kustomer.keys[name]).failed)
        assert all(sentence[0].isupper() for sentence in text.split(". ")[1:]), text
        assert ": It" not in text, text


@pytest.mark.parametrize("status", [400, 404, 405])
def test_the_advice_on_a_refusal_is_about_the_address(kustomer: Kustomer, run: Step, status: int) -> None:
    """The step has no body whose fields could be wrong; a wrong address can be."""
    kustomer.fault(Fault.answer(status, b"<h1>Not Found</h1>", on="GET"))
    text = str(run().failed)
    assert "body" not in text
    assert "baseUrl" in text


@pytest.mark.parametrize(
    ("fault", "problem", "requests", "retryable"),
    [
        (Fault.answer(500, on="GET"), ServerFailed, 3, True),
        (Fault.reset(on="GET"), NoAnswer, 3, True),
        (Fault.cut(on="GET"), NoAnswer, 3, True),
        (Fault.answer(429, headers={"Retry-After": "600"}, on="GET"), RateLimited, 1, True),
        (Fault.answer(302, headers={"Location": "/"}, on="GET"), OddAnswer, 1, False),
        (Fault.answer(200, b"<h1>Log in</h1>", on="GET"), OddAnswer, 1, True),
        (Fault.answer(200, on="GET"), OddAnswer, 1, True),
        (Fault.answer(204, on="GET"), OddAnswer, 1, True),
        (Fault.answer(200, {"data": None}, on="GET"), OddAnswer, 1, True),
        (Fault.answer(200, {"data": []}, on="GET"), OddAnswer, 1, True),
        (Fault.answer(200, {"name": "full"}, on="GET"), OddAnswer, 1, True),
    ],
    ids=["500", "reset", "cut", "429", "302", "web page", "empty", "204", "null data", "list", "no data"],
)
def test_no_answer_says_nothing_of_the_key(
    kustomer: Kustomer, run: Step, fault: Fault, problem: type[KustomerError], requests: int, retryable: bool
) -> None:
    """Only Kustomer's own answer does; a passing failure is asked again."""
    kustomer.fault(*[fault] * requests)
    found = run()
    assert (type(found.failed), found.failed.retryable) == (problem, retryable)
    assert found.asked == [LOOK] * requests
    assert run().found["name"] == "full"


def test_a_limit_is_waited_out_as_told(kustomer: Kustomer, run: Step, waits: list[float]) -> None:
    """A check counts like any other request."""
    kustomer.fault(Fault.answer(429, headers={"Retry-After": "7"}, on="GET"))
    assert run().found["name"] == "full"
    assert len(waits) == 1
    assert 7 <= waits[0] <= 8.4


# What stays inside


def ends(key: str) -> Sequence[str]:
    """The key, and as much of its end as Kustomer shows."""
    return [key, key[-20:]]


def test_no_part_of_the_key_is_in_the_result(
    kustomer: Kustomer, run: Step, auth: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the last characters that Kustomer shows, and not the key where Kustomer would show it all."""
    key = auth["apiKey"]
    result = run().found
    assert "lastTokenChars" not in json.dumps(result)
    said = {"token": key, "name": f"key {key}", "deep": [{"er": key}], "lastTokenChars": key[-4:], "roles": [key]}
    kustomer.fault(told(said | {"userAgent": "a"}))
    result = run().found
    assert result["details"] == {"userAgent": "a"}
    assert [part for part in ends(key) if part in json.dumps(result) + capsys.readouterr().out] == []


def test_no_part_of_the_key_is_in_an_error_or_the_log(
    kustomer: Kustomer, run: Step, auth: Body, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even where Kustomer quotes it."""
    key = auth["apiKey"]
    for status in (400, 401, 403, 404, 429, 500):
        reason = {"code": key, "title": f"Bearer {key}", "detail": {"token": key}, "source": {"pointer": key}}
        fault = Fault.answer(status, {"errors": [reason, key]}, {"Retry-After": "600", "x-request-id": key}, on="GET")
        kustomer.fault(*[fault] * 3)
        assert spilled(run().failed, *ends(key)) == [], status
    assert [part for part in ends(key) if part in capsys.readouterr().out] == []


# As a job


def test_job_checks_a_key(kustomer: Kustomer, windmill: Workspace, auth: Body) -> None:
    """With nothing but the deployed lock: one that works, and one that is expired."""
    right, wrong = (
        worker.run("f/kustomer/check_connection", {"auth": {**auth, "apiKey": key}}, workspace=windmill)
        for key in (auth["apiKey"], kustomer.keys["expired"])
    )
    assert right.ok, right.error
    assert (set(right.result), right.result["name"]) == (FIELDS, "full")
    assert [each["step"] for each in right.result["steps"] if not each["may_run"]] == ["f/kustomer/import_messages"]
    assert wrong.error is not None
    assert (wrong.error["name"], wrong.error["extra"]["outcome"]) == ("AccessDenied", "not_sent")
    shown = json.dumps([right.result, right.logs, wrong.error, wrong.logs])
    assert [key for key in (auth["apiKey"], kustomer.keys["expired"]) if key in shown] == []

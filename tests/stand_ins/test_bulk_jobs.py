"""The stand-in carries out bulk jobs as Kustomer documents them, and goes wrong as told."""

import contextlib
from typing import Any

import pytest
import requests

from tests.stand_ins.conftest import ask
from tests.standin.kustomer import Bulk, Fault, Kustomer

MESSAGE = {"channel": "chat", "app": "acme-inbox", "preview": "Where is my parcel?"}
DATE = "2020-01-02T03:04:05.000Z"


@pytest.fixture
def kustomer(kustomer: Kustomer) -> Kustomer:
    """Its clock stands still."""
    kustomer.advance(0)
    return kustomer


def submit(
    kustomer: Kustomer, items: Any, collection: str = "messages", key: str = "full", **more: Any
) -> requests.Response:
    """Submit a bulk job."""
    return ask(kustomer, "POST", f"/v1/{collection}/bulk", key, json=items, **more)


def messages(kustomer: Kustomer, count: int, **fields: Any) -> list[dict[str, Any]]:
    """Messages for the seeded conversation, with the ids m0, m1 and so on."""
    both = {**MESSAGE, "conversation": kustomer.conversation, "importedAt": DATE, **fields}
    return [{**both, "externalId": f"m{at}", "_clientRef": f"m{at}"} for at in range(count)]


def told(kustomer: Kustomer, job: str) -> dict[str, Any]:
    """What is said of a job."""
    response = ask(kustomer, "GET", f"/v1/bulk/{job}")
    assert response.status_code == 200
    attributes: dict[str, Any] = response.json()["data"]["attributes"]
    return attributes


def batches(kustomer: Kustomer, job: str, query: str = "") -> list[dict[str, Any]]:
    """What is said of a job's batches."""
    response = ask(kustomer, "GET", f"/v1/bulk/{job}/batches{query}")
    assert response.status_code == 200
    return [batch["attributes"] for batch in response.json()["data"]]


def results(kustomer: Kustomer, job: str) -> dict[str, dict[str, Any]]:
    """What became of each item of a job, by its _clientRef."""
    return {each["_clientRef"]: each for batch in batches(kustomer, job) for each in batch["results"]}


def ids(kustomer: Kustomer) -> list[str]:
    """The ids of the messages on record, in the order in which they were stored."""
    return [message["attributes"]["externalId"] for message in kustomer.messages]


def run(kustomer: Kustomer, items: Any, collection: str = "messages") -> dict[str, dict[str, Any]]:
    """Carry out a job, and give its results."""
    job = submit(kustomer, items, collection).json()["data"]["id"]
    kustomer.advance(60)
    assert told(kustomer, job)["status"] == "complete"
    return results(kustomer, job)


# Submitting


def test_a_submit_is_queued_and_repeats_the_payload_and_the_roles(kustomer: Kustomer) -> None:
    """The answer has the shape of the published example; nothing is stored yet."""
    items = messages(kustomer, 3)
    response = submit(kustomer, items)
    data = response.json()["data"]
    assert (response.status_code, data["type"], data["attributes"]["status"]) == (201, "bulk", "queued")
    api = data["attributes"]["payload"]["api"]
    assert (api["data"], api["path"]) == (items, "/v1/messages/bulk")
    assert "org.permission.message.create" in api["user"]["roles"]
    assert kustomer.messages == []


def test_a_job_is_carried_out_although_nobody_asks(kustomer: Kustomer) -> None:
    """First queued, then running, then complete, by the clock alone."""
    job = submit(kustomer, messages(kustomer, 100)).json()["data"]["id"]
    assert told(kustomer, job) == {
        "status": "queued",
        "completed": False,
        "batches": {"complete": 0, "total": 3, "idsTotal": 100},
        "batchErrors": 0,
        "errors": [],
        **{name: told(kustomer, job)[name] for name in ("createdAt", "updatedAt")},
    }
    kustomer.advance(0.5 + 0.005 * 50.5)
    asked = len(kustomer.requests)
    assert len(kustomer.messages) == 50
    assert len(kustomer.requests) == asked
    assert (told(kustomer, job)["status"], told(kustomer, job)["batches"]["complete"]) == ("running", 1)
    kustomer.advance(0.005)
    assert len(kustomer.timeline(kustomer.conversation)) == 2 + 51
    kustomer.advance(1)
    assert len(kustomer.messages) == 100
    assert (told(kustomer, job)["status"], told(kustomer, job)["completed"]) == ("complete", True)
    assert "completedAt" in told(kustomer, job)


def test_a_message_of_a_job_is_dated_when_it_was_stored(kustomer: Kustomer) -> None:
    """Not when somebody looked, and its own date comes first."""
    submit(kustomer, messages(kustomer, 2))
    submit(kustomer, messages(kustomer, 1, createdAt=DATE), key="admin")
    kustomer.advance(3600)
    first, _, other = sorted(message["attributes"]["createdAt"] for message in kustomer.messages)
    assert first == DATE
    assert other < told(kustomer, submit(kustomer, []).json()["data"]["id"])["createdAt"]


def test_results_say_what_became_of_each_item(kustomer: Kustomer) -> None:
    """Each under its own reference, with the id under which it is found."""
    found = run(kustomer, messages(kustomer, 100))
    assert set(found) == {f"m{at}" for at in range(100)}
    for reference in ("m0", "m99"):
        assert found[reference]["status"] == "created"
        path = f"/v1/messages/{found[reference]['objectId']}"
        assert ask(kustomer, "GET", path).json()["data"]["attributes"]["externalId"] == reference


def test_batches_come_by_pages(kustomer: Kustomer) -> None:
    """The page says how many there are."""
    job = submit(kustomer, messages(kustomer, 100)).json()["data"]["id"]
    kustomer.advance(60)
    meta = ask(kustomer, "GET", f"/v1/bulk/{job}/batches?page=2&pageSize=2").json()["meta"]
    assert meta == {"page": 2, "pages": 2, "count": 3, "limit": 2}
    counts = [batch["successCount"] for page in (1, 2) for batch in batches(kustomer, job, f"?page={page}&pageSize=2")]
    assert counts == [40, 40, 20]


def test_a_job_without_references_has_no_results(kustomer: Kustomer) -> None:
    """What is left are the ids of what was stored, and errors."""
    items = messages(kustomer, 3)
    for item in items:
        del item["_clientRef"]
    job = submit(kustomer, items).json()["data"]["id"]
    kustomer.advance(60)
    [batch] = batches(kustomer, job)
    assert "results" not in batch
    assert batch["objectIds"] == [message["id"] for message in kustomer.messages]


@pytest.mark.parametrize(
    "references",
    [["1", None], ["1", ""], ["1", "1"], ["1", 2], ["1", "x" * 256]],
    ids=["mixed", "empty", "twice", "no text", "too long"],
)
def test_references_are_on_all_items_or_none_and_unique(kustomer: Kustomer, references: list[Any]) -> None:
    """Else the whole submit is refused."""
    items = [MESSAGE if each is None else {**MESSAGE, "_clientRef": each} for each in references]
    assert submit(kustomer, items).status_code == 400
    assert submit(kustomer, [{**MESSAGE, "_clientRef": "x" * 255}, {**MESSAGE, "_clientRef": "2"}]).status_code == 201


def test_a_job_has_at_most_100_items_that_are_all_valid(kustomer: Kustomer) -> None:
    """One wrong item refuses them all, and nothing is stored."""
    assert submit(kustomer, messages(kustomer, 101)).status_code == 400
    assert submit(kustomer, [*messages(kustomer, 2), {**MESSAGE, "_clientRef": "x", "body": "x"}]).status_code == 400
    assert submit(kustomer, {"data": messages(kustomer, 2)}).status_code == 400
    assert submit(kustomer, [1]).status_code == 400
    kustomer.advance(60)
    assert (kustomer.messages, kustomer.jobs.submitted) == ([], [])


def test_a_message_of_a_job_needs_no_direction(kustomer: Kustomer) -> None:
    """As published for the bulk operation; the single one refuses it."""
    run(kustomer, messages(kustomer, 1))
    assert kustomer.messages[0]["attributes"]["direction"] == "in"
    assert ask(kustomer, "POST", "/v1/messages", json=MESSAGE).status_code == 400


def test_the_roles_are_those_of_the_creates_and_one_to_read(kustomer: Kustomer) -> None:
    """A key without bulk.read can submit, and never learns what became of it."""
    roles = {"messages": "message", "conversations": "conversation", "customers": "customer"}
    keys = {collection: kustomer.key(f"org.permission.{name}.create") for collection, name in roles.items()}
    for collection in roles:
        for other, key in keys.items():
            assert submit(kustomer, [], collection, key).status_code == (201 if other == collection else 403)
    job = submit(kustomer, []).json()["data"]["id"]
    for path in (f"/v1/bulk/{job}", f"/v1/bulk/{job}/batches"):
        assert ask(kustomer, "GET", path, keys["messages"]).status_code == 403
        for role in ("org.permission.bulk.read", "org.user.bulk.read"):
            assert ask(kustomer, "GET", path, kustomer.key(role)).status_code == 200
    assert ask(kustomer, "GET", "/v1/bulk/" + "0" * 24).status_code == 404


def test_only_an_administrator_dates_messages_back(kustomer: Kustomer) -> None:
    """As for a single message; conversations and customers have no such rule."""
    assert submit(kustomer, messages(kustomer, 1, createdAt=DATE)).status_code == 403
    assert submit(kustomer, messages(kustomer, 1, createdAt=DATE), key="admin").status_code == 201
    conversation = {"customer": kustomer.customer, "createdAt": DATE, "importedAt": DATE, "status": "done"}
    assert submit(kustomer, [conversation], "conversations").status_code == 201
    assert submit(kustomer, [{"name": "Grace", "createdAt": DATE}], "customers").status_code == 201


def test_an_empty_job_completes(kustomer: Kustomer) -> None:
    """With no batch at all."""
    job = submit(kustomer, []).json()["data"]["id"]
    kustomer.advance(1)
    assert (told(kustomer, job)["status"], batches(kustomer, job)) == ("complete", [])


# What jobs make


def test_a_customer_with_an_identifier_that_is_taken_is_a_duplicate(kustomer: Kustomer) -> None:
    """Taken before the job or within it; the others are made."""
    people = [
        {"_clientRef": "taken", "emails": [{"email": "ada.lindqvist@example.com"}]},
        {"_clientRef": "new", "emails": [{"email": "grace@example.com"}], "externalId": "9"},
        {"_clientRef": "again", "phones": [{"phone": "+4612345"}], "externalId": "9"},
    ]
    kustomer.jobs.bulk = Bulk(order="given")
    found = run(kustomer, people, "customers")
    duplicate = {"status": "error", "error": "duplicate detected"}
    assert found["taken"] == {"_clientRef": "taken", **duplicate}
    assert found["again"] == {"_clientRef": "again", **duplicate}
    assert [customer["id"] for customer in kustomer.customers] == [found["new"]["objectId"]]
    [batch] = batches(kustomer, kustomer.jobs.submitted[0].id)
    assert (batch["successCount"], batch["failureCount"]) == (1, 2)
    assert [error["data"]["message"] for error in batch["errors"]] == ["duplicate detected"] * 2


def test_a_conversation_can_be_made_done_and_dated(kustomer: Kustomer) -> None:
    """And not for a customer who isn't there."""
    both = {"status": "done", "createdAt": DATE, "importedAt": DATE}
    items = [
        {**both, "customer": kustomer.customer, "externalId": "thread-1", "_clientRef": "good"},
        {**both, "customer": "0" * 24, "_clientRef": "nobody's"},
    ]
    found = run(kustomer, items, "conversations")
    assert (found["good"]["status"], found["nobody's"]["status"]) == ("created", "error")
    [conversation] = kustomer.conversations
    assert conversation["attributes"].items() >= both.items()
    path = "/v1/conversations/externalId=thread-1"
    assert ask(kustomer, "GET", path).json()["data"]["id"] == found["good"]["objectId"]


def test_the_same_external_id_twice_gives_two_messages(kustomer: Kustomer) -> None:
    """No page says what happens: by default, what is worst for the caller."""
    run(kustomer, messages(kustomer, 2))
    run(kustomer, messages(kustomer, 2))
    assert sorted(ids(kustomer)) == ["m0", "m0", "m1", "m1"]


def test_unique_external_ids_make_the_second_a_duplicate() -> None:
    """The other possibility, on demand."""
    with Kustomer(unique_external_ids=True) as kustomer:
        run(kustomer, messages(kustomer, 2))
        assert {each["error"] for each in run(kustomer, messages(kustomer, 2)).values()} == {"duplicate detected"}
        assert len(kustomer.messages) == 2


def test_messages_that_are_not_imported_have_the_limit_of_their_customer(kustomer: Kustomer) -> None:
    """120 a minute for one customer; whether a job's items count isn't documented, so they do."""
    kustomer.jobs.bulk = Bulk(order="given")
    for _ in range(2):
        items = messages(kustomer, 100)
        for item in items:
            del item["importedAt"]
        submit(kustomer, items)
    kustomer.advance(30)
    assert len(kustomer.messages) == 120
    found = results(kustomer, kustomer.jobs.submitted[1].id)
    assert found["m99"]["error"] == "Too many messages created for this customer"


# Lists


def test_messages_are_listed_for_a_conversation_and_for_a_customer(kustomer: Kustomer) -> None:
    """At most 100 a page, following `next` until null, oldest first unless told."""
    for _ in range(2):
        run(kustomer, messages(kustomer, 100))
    owners = (f"conversations/{kustomer.conversation}", f"customers/{kustomer.customer}")
    for owner in owners:
        for sort, size in (("", "&pageSize=500"), ("&sort=desc", "&pageSize=100"), ("&sort=asc", "")):
            path, pages = f"/v1/{owner}/messages?page=1{size}{sort}", 0
            found: list[dict[str, Any]] = []
            while path:
                page = ask(kustomer, "GET", path).json()
                found, pages, path = found + page["data"], pages + 1, page["links"]["next"]
            assert (len(found), pages, page["meta"]["total"]) == (202, 3, 202)
            dates = [message["attributes"]["createdAt"] for message in found]
            assert dates == sorted(dates, reverse="desc" in sort)
    assert ask(kustomer, "GET", f"/v1/customers/{'0' * 24}/messages").status_code == 404


# Faults


@pytest.mark.parametrize("store", [False, True])
@pytest.mark.parametrize("fault", [Fault.cut, Fault.close, Fault.reset, lambda **more: Fault.answer(504, **more)])
def test_a_submit_without_an_answer_is_accepted_or_not(kustomer: Kustomer, fault: Any, store: bool) -> None:
    """The fault says which."""
    kustomer.fault(fault(at="/v1/messages/bulk", store=store))
    with contextlib.suppress(requests.RequestException):
        assert submit(kustomer, messages(kustomer, 3)).status_code == 504
    kustomer.advance(60)
    assert len(kustomer.messages) == (3 if store else 0)
    assert len(kustomer.jobs.submitted) == store
    assert len(run(kustomer, messages(kustomer, 3))) == 3


@pytest.mark.parametrize(
    ("collection", "path"),
    [
        ("messages", "/v1/conversations/{conversation}/messages"),
        ("messages", "/v1/messages/externalId=m1"),
        ("conversations", "/v1/conversations/externalId=m1"),
        ("customers", "/v1/customers/externalId=m1"),
        ("customers", "/v1/customers/email=m1@example.com"),
    ],
)
def test_a_submit_may_be_carried_out_after_somebody_has_looked(kustomer: Kustomer, collection: str, path: str) -> None:
    """However long that takes: one look finds nothing, and a later one everything."""
    bodies: dict[str, Any] = {
        "messages": messages(kustomer, 2),
        "conversations": [{"customer": kustomer.customer, "externalId": f"m{at}"} for at in range(2)],
        "customers": [{"externalId": f"m{at}", "emails": [{"email": f"m{at}@example.com"}]} for at in range(2)],
    }
    kustomer.fault(Fault.late_store(at=f"/v1/{collection}/bulk"))
    assert submit(kustomer, bodies[collection], collection).status_code == 504
    for other in bodies.keys() - {collection}:
        assert ask(kustomer, "GET", f"/v1/{other}/externalId=m1").status_code == 404
    kustomer.advance(3600)
    made = getattr(kustomer, collection)
    assert ask(kustomer, "GET", path.format(conversation=kustomer.conversation)).status_code in (200, 404)
    assert made == []
    kustomer.advance(60)
    assert len(getattr(kustomer, collection)) == 2


# What no page says


@pytest.mark.parametrize("order", ["given", "reversed", 1, 2])
def test_a_jobs_items_are_stored_in_any_order(kustomer: Kustomer, order: Any) -> None:
    """Reversed unless told; a number shuffles, always alike."""
    given = [f"m{at}" for at in range(100)]
    orders = []
    for bulk in (Bulk(order=order), Bulk(order=order), Bulk()):
        kustomer.clear()
        kustomer.jobs.bulk = bulk
        run(kustomer, messages(kustomer, 100))
        orders.append(ids(kustomer))
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(given)
    assert {"given": orders[0] == given, "reversed": orders[0] == given[::-1]}.get(order, orders[0] != given)
    assert orders[2] == given[::-1]
    assert batches(kustomer, kustomer.jobs.submitted[0].id)[0]["objectIds"][0] == kustomer.messages[0]["id"]


def test_jobs_run_side_by_side(kustomer: Kustomer) -> None:
    """Each waits for its own delay, and one may overtake another."""
    kustomer.jobs.next(Bulk("given", delay=30), "messages")
    kustomer.jobs.next(Bulk("given", delay=10, per_item=10), "messages")
    slow, steady = messages(kustomer, 1), messages(kustomer, 3)
    slow[0]["externalId"] = "slow"
    jobs = [submit(kustomer, items).json()["data"]["id"] for items in (slow, steady)]
    kustomer.advance(11)
    assert [told(kustomer, job)["status"] for job in jobs] == ["queued", "running"]
    kustomer.advance(100)
    assert ids(kustomer) == ["m0", "m1", "slow", "m2"]
    times = [message["attributes"]["createdAt"] for message in kustomer.messages]
    assert times == sorted(times)


def test_a_job_on_a_clock_that_runs_needs_no_help() -> None:
    """By itself, in real time."""
    with Kustomer() as kustomer:
        kustomer.jobs.bulk = Bulk(delay=0, per_item=0)
        submit(kustomer, messages(kustomer, 3))
        assert len(kustomer.messages) == 3


@pytest.mark.parametrize(
    ("after", "stored", "status", "complete"),
    [(0, 0, "queued", 0), (50, 50, "running", 1), (100, 100, "running", 2)],
)
def test_a_job_may_be_stuck(kustomer: Kustomer, after: int, stored: int, status: str, complete: int) -> None:
    """Before it starts, half-way, or after all is stored; the next one isn't."""
    kustomer.jobs.next(Bulk(stuck_after=after), "messages")
    job = submit(kustomer, messages(kustomer, 100)).json()["data"]["id"]
    kustomer.advance(86_400)
    assert len(kustomer.messages) == stored
    assert (told(kustomer, job)["status"], told(kustomer, job)["completed"]) == (status, False)
    assert told(kustomer, job)["batches"]["complete"] == complete
    assert len(results(kustomer, job)) == 40 * complete
    assert len(run(kustomer, messages(kustomer, 3))) == 3


def test_the_next_job_of_a_collection_can_be_told_apart(kustomer: Kustomer) -> None:
    """Others go as usual, and `clear` forgets it."""
    kustomer.jobs.next(Bulk(stuck_after=0), "messages")
    assert run(kustomer, [{"_clientRef": "1"}], "customers")["1"]["status"] == "created"
    kustomer.clear()
    assert run(kustomer, messages(kustomer, 1))["m0"]["status"] == "created"


def test_some_items_of_a_job_may_fail(kustomer: Kustomer) -> None:
    """With a text; the others are stored."""
    kustomer.jobs.bulk = Bulk(fails=lambda item: "Internal error" if item["externalId"] == "m1" else None)
    found = run(kustomer, messages(kustomer, 3))
    assert found["m1"] == {"_clientRef": "m1", "status": "error", "error": "Internal error"}
    assert sorted(ids(kustomer)) == ["m0", "m2"]


def test_results_may_be_missing(kustomer: Kustomer) -> None:
    """Absent although there were references; or batches that are no resources."""
    kustomer.jobs.bulk = Bulk(results=False)
    job = submit(kustomer, messages(kustomer, 3)).json()["data"]["id"]
    kustomer.jobs.bulk = Bulk(flat=True)
    flat = submit(kustomer, messages(kustomer, 3)).json()["data"]["id"]
    kustomer.advance(60)
    [batch] = batches(kustomer, job)
    assert ("results" in batch, len(batch["objectIds"]), batch["successCount"]) == (False, 3, 3)
    [batch] = ask(kustomer, "GET", f"/v1/bulk/{flat}/batches").json()["data"]
    assert ("attributes" in batch, len(batch["results"])) == (False, 3)


def test_jobs_and_batches_may_be_gone(kustomer: Kustomer) -> None:
    """After a while, or at once."""
    kustomer.jobs.bulk = Bulk(kept=100, batches_kept=50)
    job = submit(kustomer, messages(kustomer, 3)).json()["data"]["id"]
    for seconds, statuses in ((49, (200, 200)), (1, (200, 404)), (50, (404, 404))):
        kustomer.advance(seconds)
        paths = (f"/v1/bulk/{job}", f"/v1/bulk/{job}/batches")
        assert tuple(ask(kustomer, "GET", path).status_code for path in paths) == statuses
    assert len(kustomer.messages) == 3


def test_a_submit_may_be_100_kb_or_as_told(kustomer: Kustomer) -> None:
    """As any body; whether more is allowed isn't documented."""
    items = messages(kustomer, 100, preview="x" * 1000)
    assert submit(kustomer, items).status_code == 413
    kustomer.jobs.max_body = 1_000_000
    assert submit(kustomer, items).status_code == 201
    big = {**MESSAGE, "direction": "in", "meta": {"x": "x" * 100_000}}
    assert ask(kustomer, "POST", "/v1/messages", json=big).status_code == 413


def test_what_was_stored_may_show_later(kustomer: Kustomer) -> None:
    """In look-ups and lists; its identifiers are taken all the same."""
    kustomer.lag = 5
    kustomer.jobs.bulk = Bulk(delay=0, per_item=0)
    submit(kustomer, messages(kustomer, 1))
    submit(kustomer, [{"externalId": "7"}], "customers")
    mine = submit(kustomer, [{"externalId": "7", "_clientRef": "7"}], "customers").json()["data"]["id"]
    thread = f"/v1/conversations/{kustomer.conversation}/messages"
    for seconds, status, count in ((4, 404, 2), (1, 200, 3)):
        kustomer.advance(seconds)
        assert ask(kustomer, "GET", "/v1/messages/externalId=m0").status_code == status
        assert ask(kustomer, "GET", "/v1/customers/externalId=7").status_code == status
        assert len(ask(kustomer, "GET", thread).json()["data"]) == count
        assert results(kustomer, mine)["7"]["error"] == "duplicate detected"
    assert len(kustomer.timeline(kustomer.conversation)) == 3


def test_a_message_of_the_customer_reopens_its_conversation(kustomer: Kustomer) -> None:
    """Imported or not; one of the team's doesn't."""

    def status(**fields: Any) -> str:
        kustomer.clear()
        done = {"customer": kustomer.customer, "status": "done", "_clientRef": "1"}
        conversation = run(kustomer, [done], "conversations")["1"]["objectId"]
        run(kustomer, [{**MESSAGE, "conversation": conversation, "_clientRef": "1", **fields}])
        return str(kustomer.conversations[0]["attributes"]["status"])

    assert status(importedAt=DATE, direction="in") == "open"
    assert status(importedAt=DATE, direction="out") == "done"
    assert status(direction="in") == "open"


# The organisation's limit


def test_agents_use_up_the_limit_beside_the_callers() -> None:
    """Evenly spread over the minute, and seen in what is left."""
    with Kustomer(limit=500, agents=120) as kustomer:
        kustomer.advance(0)

        def left() -> int:
            return int(ask(kustomer, "GET", "/v1/x").headers["x-ratelimit-remaining"])

        assert left() == 499
        kustomer.advance(30.1)
        assert left() == 499 - 60 - 1
        assert kustomer.lowest_remaining == 438
        kustomer.advance(60)
        assert left() == 438, "in a window of its own"
        assert (kustomer.lowest_remaining, kustomer.agents_refused) == (438, 0)


def test_agents_are_refused_when_a_caller_has_used_up_the_limit() -> None:
    """Until the window ends; then nobody is."""
    with Kustomer(limit=10, agents=6) as kustomer:
        kustomer.advance(0)
        statuses = [ask(kustomer, "GET", "/v1/x").status_code for _ in range(11)]
        assert statuses == [404] * 10 + [429]
        assert kustomer.lowest_remaining == 0
        kustomer.advance(59.9)
        assert kustomer.agents_refused == 5
        kustomer.advance(60)
        assert kustomer.agents_refused == 5
        kustomer.clear()
        assert (kustomer.lowest_remaining, kustomer.agents_refused) == (10, 0)


def test_every_answer_may_say_when_the_limit_ends(kustomer: Kustomer) -> None:
    """By the clock of the stand-in, on which its answers are dated too."""
    kustomer.now = lambda: 1_800_000_000
    kustomer.tell_reset = False
    assert "x-ratelimit-reset" not in ask(kustomer, "GET", "/v1/x").headers
    kustomer.tell_reset = True
    kustomer.advance(20)
    answer = ask(kustomer, "GET", "/v1/x")
    assert answer.headers["x-ratelimit-reset"] == "1800000060"
    kustomer.fault(Fault.answer(503, on="GET"))
    for each in (answer, ask(kustomer, "GET", "/v1/x")):
        assert each.headers["Date"] == "Fri, 15 Jan 2027 08:00:20 GMT"

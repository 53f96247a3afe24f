"""A file is imported by bulk jobs: each message, thread and customer once, whatever Kustomer's jobs are like."""

import base64
import json
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from f.kustomer.history import threads
from f.kustomer.history.jobs import AtWork
from f.kustomer.shared import storage
from f.kustomer.shared.errors import AccessDenied, FileNotRead
from tests.history.conftest import KEY, ROLES, Site, history
from tests.standin.bulk import Bulk, Item
from tests.standin.faults import Fault
from tests.standin.kustomer import Kustomer

QUARTER = 900
SUBMITS = ("/v1/customers/bulk", "/v1/conversations/bulk", "/v1/messages/bulk")


def test_a_history_is_imported_once(site: Site) -> None:
    """Each message is on its thread's timeline, in order, and a second run finds it all there."""
    rows = history(250, threads=40, customers=25)
    site.put(rows)
    first = site.run()
    assert first["created"] == 250
    assert (first["customers"], first["conversations"]) == (25, 40)
    assert first["requests"] == len(site.kustomer.requests)
    site.assert_once(rows)
    again = site.run()
    assert again["already"] == 250
    assert again["requests"] == 1, "it asks for nothing that it has noted"
    site.assert_once(rows)


def test_what_is_sent_is_what_the_file_says(site: Site) -> None:
    """Dates, directions, texts and the marks of an import; conversations are done and named by their first message."""
    rows = history(3, threads=1)
    site.put([{**rows[0], "name": "Ada"}, *rows[1:]])
    site.run()
    (conversation,) = site.kustomer.conversations
    shown = conversation["attributes"]
    assert (shown["status"], shown["name"], shown["createdAt"]) == ("done", "Order 0", rows[0]["sentAt"])
    assert shown["importedAt"]
    (customer,) = site.kustomer.customers
    assert customer["attributes"]["name"] == "Ada"
    for row, message in zip(rows, site.kustomer.timeline(conversation["id"]), strict=True):
        about = message["attributes"]
        assert about["externalId"] == row["messageId"]
        assert about["preview"] == row["text"]
        assert about["direction"] == row["direction"]
        assert about["app"] == "old-helpdesk"
        assert about["sentAt"] == about["createdAt"] == row["sentAt"]
        assert about["importedAt"]
        assert message["relationships"]["customer"]["data"]["id"] == customer["id"]


def test_check_writes_nothing_and_says_what_it_will_take(site: Site) -> None:
    """The numbers are those of the import that follows."""
    rows = history(300, threads=50, customers=20)
    site.put([*rows, {"messageId": "odd"}])
    for fresh in (True, False):
        site.clear()
        told = site.run(check=True, fresh=fresh)
        assert not [seen for seen in site.kustomer.requests if seen.method != "GET"]
        assert list(site.files) == [KEY]
        assert (told["rows"], told["left"], told["refused"]) == (301, 300, 1)
        assert (told["threads"], told["customers"], told["conversations"]) == (50, 20, 50)
        assert told["work"] == [{"part": 0}]
        assert (told["first"], told["last"]) == ("2020-01-01T00:00:00Z", "2020-01-01T04:59:00Z")
        done = site.run(fresh=fresh)
        assert done["customers"], done["conversations"] == (20, 50)
        assert done["requests"] == pytest.approx(told["requests"], rel=0.3)


@pytest.mark.parametrize(
    "text", ["x" * 900, "ü" * 900, "我" * 500, "💬" * 300], ids=["ascii", "umlauts", "hanzi", "emoji"]
)
@pytest.mark.parametrize("threads", [20, 150])
def test_the_requests_that_are_told_are_those_that_are_needed(site: Site, text: str, threads: int) -> None:
    """Within a fifth, whatever letters the texts are of, with the files that are linked."""
    rows: list[Any] = [{**row, "text": text} for row in history(600, threads=threads, customers=threads)]
    for row in rows[:5]:
        row["files"] = "https://files.acme.example/a.pdf"
    site.put(rows)
    site.kustomer.jobs.bulk = Bulk(delay=0, per_item=0)
    for fresh in (True, False):
        site.clear()
        site.put(rows)
        told = site.run(check=True, fresh=fresh)["requests"]
        assert site.run(fresh=fresh)["requests"] == pytest.approx(told, rel=0.2)


def test_messages_that_anybody_has_recorded_are_left_as_they_are(site: Site) -> None:
    """A message is known by its id in its thread, whatever its app; a thread by its id, whoever it is with."""
    rows = history(12, threads=2)
    thread = rows[0]["threadId"]
    site.put([row for row in rows if row["threadId"] == thread][:2])
    site.run(app="record-message")
    site.put(rows)
    result = site.run(app="old-helpdesk")
    assert (result["created"], result["already"], result["conversations"]) == (10, 2, 1)
    site.assert_once(rows)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("store", [False, True], ids=["not stored", "stored"])
@pytest.mark.parametrize("status", [504, 503, 500, 0], ids=str)
@pytest.mark.parametrize("at", SUBMITS)
def test_a_submit_whose_answer_is_lost_doubles_nothing(
    site: Site, at: str, status: int, store: bool, fresh: bool
) -> None:
    """What shows within a minute was stored; else the same run sends none of it again, and the next one waits first."""
    rows = history(20, threads=4)
    site.put(rows)
    gone = Fault.answer(status, b"<html>", store=store, at=at) if status else Fault.cut(store=store, at=at)
    site.kustomer.fault(gone)
    result = site.run(fresh=fresh)
    assert result["created"] == (20 if store else 0)
    assert result["unknown"] == (20 if at == SUBMITS[2] and not store else 0)
    assert sum(seen.path == at for seen in site.kustomer.requests) == 1
    if not store:
        assert "quarter of an hour" in result["remarks"][-1]
        lost = site.kustomer.now()
        assert site.run(fresh=fresh)["created"] == 20
        assert site.kustomer.now() - lost > QUARTER - 120
    site.assert_once(rows)


@pytest.mark.parametrize("seconds", [None, 300])
@pytest.mark.parametrize("late", [10, 130, 800])
@pytest.mark.parametrize("at", SUBMITS)
def test_a_submit_that_is_carried_out_late_doubles_nothing(
    site: Site, at: str, late: float, seconds: float | None
) -> None:
    """However often it is run in between, and whatever it said of it."""
    rows = history(20, threads=4)
    site.put(rows)
    site.kustomer.jobs.next(Bulk(delay=late), at.split("/")[2])
    site.kustomer.fault(Fault.answer(504, b"<html>", store=True, at=at))
    given = {"seconds": seconds} if seconds else {}
    results = [site.run(fresh=True, **given)]
    while results[-1]["created"] + results[-1]["already"] < 20:
        assert results[-1]["unknown"] == (20 - results[-1]["created"] if at == SUBMITS[2] else 0)
        assert len(results) < 9
        results.append(site.run(fresh=True, **given))
    site.kustomer.advance(1_000)
    site.assert_once(rows)


@pytest.mark.parametrize("at", SUBMITS)
def test_what_appears_only_once_it_was_looked_for_is_not_doubled(site: Site, at: str) -> None:
    """The first of two looks may be the next run's, where the one that submitted was killed or had no time."""
    rows = history(20, threads=4)
    site.put(rows)
    site.kustomer.fault(Fault.late_store(at=at))
    site.run(seconds=20)
    result = site.run()
    assert result["created"] + result["already"] == 20
    site.assert_once(rows)


@pytest.mark.parametrize(
    "bulk",
    [
        Bulk(delay=0, per_item=0),
        Bulk(delay=300),
        Bulk(per_item=7, batch_size=1),
        Bulk(results=False),
        Bulk(flat=True),
        Bulk(order=3, batch_size=1000),
        Bulk(kept=0),
        Bulk(batches_kept=0),
    ],
    ids=["at once", "late", "slow", "no results", "flat", "shuffled", "forgotten", "batches forgotten"],
)
@pytest.mark.parametrize("fresh", [False, True])
def test_whatever_jobs_are_like_each_message_is_recorded_once(site: Site, bulk: Bulk, fresh: bool) -> None:
    """Jobs that are slow, tell nothing, or are forgotten: what they leave open, Kustomer's records tell."""
    rows = history(60, threads=12)
    site.put(rows)
    site.kustomer.jobs.bulk = bulk
    result = site.run(fresh=fresh)
    if bulk.kept == 0 and bulk.delay > 60:  # nobody can tell
        assert (result["unknown"], result["created"]) == (0, 0)
        result = site.run(fresh=fresh)
    assert result["created"] == 60
    site.assert_once(rows)


@pytest.mark.parametrize("after", [0, 1, 7, 1000])
@pytest.mark.parametrize("collection", ["customers", "conversations", "messages"])
def test_a_job_that_is_stuck_leaves_its_rows_unknown_or_recorded(site: Site, collection: str, after: int) -> None:
    """Nothing is sent that it may record yet; when it ends after all, the next run finds out."""
    rows = history(30, threads=8, customers=8)
    site.put(rows)
    stuck = Bulk(stuck_after=after)
    site.kustomer.jobs.next(stuck, collection)
    result = site.run(fresh=True)
    assert result["created"] == len(site.kustomer.messages)
    assert result["unknown"] == (max(30 - after, 0) if collection == "messages" else 0)
    if after < 1000:
        assert "has not ended" in result["remarks"][-1]
        assert result["created"] < 30
        again = site.run(fresh=True)
        assert (again["created"], again["already"]) == (0, 0), "it waits on, and sends nothing"
        assert again["unknown"] == result["unknown"]
        (job,) = [each for each in site.kustomer.jobs.submitted if each.ended is None]
        job.bulk = Bulk()
        site.kustomer.jobs._plan(job, site.kustomer.now())  # Kustomer's people have mended it
        last = site.run(fresh=True)
        assert last["created"] + last["already"] == 30
    site.assert_once(rows)


def test_a_job_that_never_ends_is_given_up_after_a_day(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then what it has not recorded is sent."""
    rows = history(30, threads=8)
    site.put(rows)
    site.kustomer.jobs.next(Bulk(stuck_after=5), "messages")
    assert site.run()["unknown"] == 25
    monkeypatch.setattr(threads, "GIVEN_UP_SECONDS", -1)
    result = site.run()
    assert (result["created"], result["already"]) == (25, 5)
    site.assert_once(rows)


def test_a_message_that_kustomer_refuses_is_told_with_its_reason(site: Site) -> None:
    """The rest is recorded; what Kustomer says is told, but not the texts of the row that it may quote."""
    rows = history(20, threads=3)
    site.put(rows)

    def fails(item: Item) -> str | None:
        if item.get("externalId") == rows[7]["messageId"]:
            return f"custom.loyaltyNum is not defined (in '{rows[7]['text']}' of {rows[7]['email']})"
        return None

    site.kustomer.jobs.bulk = Bulk(fails=fails)
    result = site.run()
    assert (result["created"], result["refused"]) == (19, 1)
    (problem,) = result["reasons"]
    assert (problem["rows"], problem["example"]) == (1, 8)
    assert "loyaltyNum" in problem["title"]
    for secret in (rows[7]["text"], rows[7]["email"]):
        assert secret not in json.dumps(result)
    assert result["refused_rows"].startswith(f"{KEY}.import/refused-0000-")
    (line,) = site.files[result["refused_rows"]].decode().splitlines()
    assert {**rows[7], "_refused": f"row 8: {problem['title']}"} == json.loads(line)
    site.kustomer.jobs.bulk = Bulk()
    assert site.run(file={"s3": result["refused_rows"]})["created"] == 1, "it imports as it is"
    site.assert_once(rows)
    assert site.run()["already"] == 20


@pytest.mark.parametrize("collection", ["customers", "conversations"])
def test_a_thread_that_kustomer_refuses_refuses_its_messages(site: Site, collection: str) -> None:
    """Each of its rows is told, and the other threads are imported."""
    rows = history(30, threads=5, customers=5)
    site.put(rows)
    wrong = "customer-3@example.com" if collection == "customers" else "thread-3"

    def fails(item: Item) -> str | None:
        return f"no {wrong} here" if wrong in json.dumps(item) else None

    site.kustomer.jobs.bulk = Bulk(fails=fails)
    result = site.run()
    refused = [number for number, row in enumerate(rows, 1) if row["threadId"] == "thread-3"]
    (reason,) = result["reasons"]
    assert (reason["rows"], reason["example"]) == (len(refused), refused[0])
    assert result["refused"] == len(refused)
    assert "customer-3@example.com" not in json.dumps(result)
    site.kustomer.jobs.bulk = Bulk()
    assert site.run()["created"] == len(refused)
    site.assert_once(rows)


def test_one_item_for_which_a_whole_job_is_refused_is_found(site: Site) -> None:
    """Where Kustomer checks a body as a whole, halves of it are sent, until the one item is alone."""
    rows = history(40, threads=3)
    site.put(rows)
    wrong = {"errors": [{"code": "bad_request", "message": "items[0].lang is no language"}]}
    site.kustomer.fault(*(Fault.answer(400, wrong, at=SUBMITS[2]) for _ in (40, 20, 10, 5, 2, 1)))
    result = site.run()
    assert (result["created"], result["refused"]) == (39, 1)
    assert "no language" in result["reasons"][0]["title"]
    assert site.run()["created"] == 1
    site.assert_once(rows)


def test_a_smaller_limit_of_bytes_is_found_out(site: Site) -> None:
    """No page tells how large a bulk body may be: what is too large is cut in two, and no more such are sent."""
    rows = history(120, threads=10)
    for row in rows:
        row["text"] = row["text"].ljust(1_000, ".")
    site.put(rows)
    site.kustomer.jobs.max_body = 30_000
    result = site.run()
    site.kustomer.jobs.max_body = 100_000
    assert result["created"] == 120
    site.assert_once(rows)
    assert sum(seen.path == SUBMITS[2] and len(seen.body) > 30_000 for seen in site.kustomer.requests) <= 3


def test_a_message_that_is_in_another_conversation_is_refused_as_a_conflict(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where externalIds are unique, its row says where the message is; in its own thread it counts as recorded."""
    monkeypatch.setitem(site.kustomer._unique, "messages", frozenset({"id", "externalId"}))
    rows = history(10, threads=2)
    site.put([{**rows[0], "threadId": "elsewhere"}])
    site.run()
    (elsewhere,) = site.kustomer.conversations
    site.put(rows)
    result = site.run()
    assert (result["created"], result["already"], result["refused"]) == (9, 0, 1)
    assert f"conversation {elsewhere['id']}" in result["reasons"][0]["title"]


def test_customers_who_are_there_are_found(site: Site) -> None:
    """They are submitted without a look; whom Kustomer refuses is looked for by each of their identifiers."""
    rows = history(20, threads=10, customers=10)
    site.put(rows[:5])
    site.run(fresh=True)
    rows[9] |= {"customerExternalId": "c-77"}
    site.put(rows)
    assert site.run()["created"] == 15
    site.assert_once(rows)


def test_a_thread_is_with_the_customer_of_its_oldest_row_from_one(site: Site) -> None:
    """An answer's author may be an agent; threads in which others are named are counted, with examples."""
    rows = history(12, threads=2, customers=2)
    for at, row in enumerate(rows):
        row |= {"threadId": f"thread-{at % 2}", "email": f"customer-{at % 2}@example.com", "direction": "in"}
    rows[0] |= {"direction": "out", "email": "agent@acme.example"}
    rows[4] |= {"email": "carol@example.com"}
    rows[6] |= {"customerExternalId": "c-1"}
    site.put(rows)
    checked = site.run(check=True)
    assert checked["customers"] == 2
    result = site.run()
    assert checked["other_customers"] == result["other_customers"] == {"threads": 1, "rows": [1]}
    emails = {each["attributes"]["emails"][0]["email"] for each in site.kustomer.customers}
    assert emails == {"customer-0@example.com", "customer-1@example.com"}
    assert site.recorded().total() == 12


def test_an_answer_alone_is_with_whom_it_names(site: Site) -> None:
    """There is nobody else."""
    rows = [{**row, "direction": "out"} for row in history(3, threads=1)]
    rows[1]["email"] = "late@example.com"
    site.put(rows)
    site.run()
    (customer,) = site.kustomer.customers
    assert customer["attributes"]["emails"][0]["email"] == rows[0]["email"]


def test_a_conversation_of_somebody_else_takes_nothing(site: Site) -> None:
    """Two helpdesks number their tickets from 1000; where a thread is the same customer's, it goes on."""
    old = [{**row, "messageId": f"old-{at}"} for at, row in enumerate(history(12, threads=3, customers=3))]
    site.put(old)
    site.run()
    rows = history(12, threads=3, customers=3)
    stranger = [{**row, "email": f"other-{row['email']}"} if row["threadId"] == "thread-1" else row for row in rows]
    site.put(stranger)
    refused = sum(row["threadId"] == "thread-1" for row in rows)
    for _ in range(2):
        result = site.run(fresh=True)
        assert (result["created"] + result["already"], result["refused"]) == (12 - refused, refused)
        (reason,) = result["reasons"]
        assert reason["path"] == "threadId"
        assert "another customer" in reason["title"]
    assert not any(each["attributes"]["emails"][0]["email"].startswith("other") for each in site.kustomer.customers)
    assert site.recorded().total() == 24 - refused


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of some rows only."""
    monkeypatch.setattr("f.kustomer.history.plan.ROWS_OF_A_PART", 40)


@pytest.mark.usefixtures("small_parts")
def test_parts_side_by_side_import_the_whole(site: Site) -> None:
    """Whatever the parts have in common, such as customers, is there once."""
    rows = history(100, threads=30, customers=4)
    site.put(rows)
    results = [site.run(part=part, fresh=True) for part in range(3)]
    assert sum(each["rows"] for each in results) == 100
    assert sum(each["created"] for each in results) == 100
    assert sum(each["customers"] for each in results) == 4
    site.assert_once(rows)


@pytest.mark.usefixtures("small_parts")
def test_one_job_imports_all_parts(site: Site) -> None:
    """Where nobody says which, and with the notes of each."""
    rows = history(100, threads=30)
    site.put(rows)
    assert site.run(part=1)["created"]
    result = site.run()
    assert (result["rows"], result["created"] + result["already"]) == (100, 100)
    assert site.run(part=2)["requests"] == 1
    site.assert_once(rows)


@pytest.mark.usefixtures("small_parts")
def test_a_trial_a_part_and_the_whole_share_what_is_noted(site: Site) -> None:
    """A trial is part 0, up to so many rows."""
    rows = history(100, threads=30)
    site.put(rows)
    trial = site.run(limit=10, fresh=True)
    assert 0 < trial["created"] <= 10
    site.run(part=0, fresh=True)
    site.run(fresh=True)
    assert not [seen for seen in site.kustomer.gets if "conversations/externalId" in seen.path]
    assert site.run(limit=50)["requests"] == 1
    site.assert_once(rows)


def test_limit_imports_whole_threads_and_the_rest_follows(site: Site) -> None:
    """Without a look, as it is noted which threads are done."""
    rows = history(200, threads=30)
    site.put(rows)
    first = site.run(limit=20, fresh=True)
    assert 0 < first["created"] <= 20
    assert first["left"] == 200 - first["created"]
    rest = site.run(fresh=True)
    assert rest["already"] == first["created"]
    assert rest["created"] == first["left"]
    assert not [seen for seen in site.kustomer.gets if seen.path.startswith("/v1/conversations/externalId")]
    site.assert_once(rows)


def test_a_trial_of_one_long_thread_takes_its_oldest_messages(site: Site) -> None:
    """And the whole import takes the others."""
    rows = history(60, threads=1)
    site.put(rows)
    assert site.run(limit=20, fresh=True)["created"] == 20
    assert site.timelines() == {"thread-0": [row["text"] for row in rows[:20]]}
    assert site.run(fresh=True)["created"] == 40
    site.assert_once(rows)


def test_fresh_is_not_believed_where_another_import_was_here(site: Site) -> None:
    """Somebody changes their mind, and forgets that it was recorded; it says so."""
    rows = history(60, threads=10)
    site.put(rows)
    site.run(fresh=True)
    for _ in range(2):
        result = site.run(fresh=True, app="other")
        assert result["already"] == 60
        assert "fresh is off" in result["remarks"][0]
    site.assert_once(rows)


def test_a_corrected_file_of_the_same_name_is_imported_anew(site: Site) -> None:
    """What was recorded stays, what was corrected follows, also where somebody still says fresh."""
    rows = history(60, threads=10)
    site.put([{**row, "email": None} if at % 7 == 0 else row for at, row in enumerate(rows)])
    first = site.run(fresh=True)
    assert first["refused"] == 9
    site.put(rows)
    second = site.run(fresh=True)
    assert (second["already"], second["created"]) == (51, 9)
    site.assert_once(rows)


def test_a_small_file_that_was_dropped_is_imported(site: Site) -> None:
    """Without a place for notes it looks for everything, and says what that may cost."""
    rows = history(20)
    content = base64.b64encode("".join(f"{json.dumps(each)}\n" for each in rows).encode()).decode()
    result = site.run(content=content)
    assert result["created"] == 20
    assert "second time" in result["remarks"][0]
    assert site.run(content=content)["already"] == 20
    site.assert_once(rows)


def test_a_key_that_lacks_roles_is_told_all_of_them(site: Site) -> None:
    """Before anything is written, and with the one that is easily overlooked."""
    site.put(history(3))
    site.token = site.kustomer.key("org.permission.message.create", "org.permission.customer.read")
    for given in ({}, {"check": True}):
        with pytest.raises(AccessDenied) as raised:
            site.run(**given)
        for role in set(ROLES) - {"org.permission.message.create", "org.permission.customer.read"}:
            assert role in str(raised.value)
        assert "org.admin" in str(raised.value)
        assert raised.value.outcome == "not_sent"
    assert not [seen for seen in site.kustomer.requests if seen.method == "POST"]
    assert list(site.files) == [KEY]


def test_a_key_that_is_let_in_nowhere_stops_at_the_first_request(site: Site) -> None:
    """Nothing is written, not even a note."""
    site.put(history(3))
    site.token = site.kustomer.keys["expired"]
    with pytest.raises(AccessDenied):
        site.run()
    assert len(site.kustomer.requests) == 1
    assert list(site.files) == [KEY]


@pytest.mark.parametrize(("at", "name"), list(zip(SUBMITS, ["email", "subject", "text"], strict=True)))
@pytest.mark.parametrize("status", [500, 400])
def test_nothing_secret_is_in_the_log_or_the_result(
    site: Site, at: str, name: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither the key nor what Kustomer repeats of what was submitted."""
    rows = [{**row, "subject": f"About the order {at}"} for at, row in enumerate(history(20 if status == 500 else 1))]
    site.put(rows)
    written = [row[name] for row in rows]
    told = {"errors": [{"code": "x", "message": f"{site.token} {' '.join(written)}"}]}
    for _ in range(100 if status == 400 else 1):
        site.kustomer.fault(Fault.answer(status, told, at=at))
    result = site.run()
    site.kustomer._faults.clear()
    assert "[...]" in json.dumps(result)
    said = capsys.readouterr().out + json.dumps(result)
    for secret in (site.token, *(row["text"] for row in rows), *(row["email"] for row in rows)):
        assert secret not in said


def test_what_kustomer_never_tells_of_stays_unknown(site: Site) -> None:
    """It takes it, says nothing, and has nothing to show: nobody has said no to it, and nothing of it is doubled."""
    rows = history(6, threads=1)
    site.put(rows)

    def fails(item: Item) -> str | None:
        return "lost" if item.get("externalId") == rows[2]["messageId"] else None

    site.kustomer.jobs.bulk = Bulk(results=False, fails=fails)
    for _ in range(2):
        result = site.run()
        assert (result["created"] + result["already"], result["unknown"]) == (5, 1)
    site.kustomer.jobs.bulk = Bulk()
    assert site.run()["created"] == 1
    site.assert_once(rows)


@pytest.mark.usefixtures("small_parts")
def test_parts_at_the_same_time_import_the_whole(site: Site) -> None:
    """Workers don't know of each other: customers whom two of them make are made by one."""
    rows = history(120, threads=40, customers=3)
    site.put(rows)
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda part: site.run(part=part, fresh=True), range(3)))
    assert sum(each["created"] for each in results) == 120
    assert sum(each["customers"] for each in results) == 3
    site.assert_once(rows)


def test_a_long_thread_is_listed_to_its_end(site: Site) -> None:
    """Page by page, so that none of its messages is recorded again."""
    rows = history(450, threads=2)
    site.put(rows)
    site.run()
    site.put([*rows, *({**row, "messageId": f"new-{row['messageId']}"} for row in rows[:3])])
    result = site.run()
    assert (result["already"], result["created"]) == (450, 3)


def test_a_customer_with_two_spellings_is_looked_for_in_both(site: Site) -> None:
    """Kustomer compares one spelling only, and would take the other one's for somebody new."""
    rows = history(4, threads=2, customers=2)
    for row, email in zip(rows, ["ada@münchen.example", "ada@xn--mnchen-3ya.example"] * 2, strict=True):
        row["threadId"], row["email"] = email, email
    site.put(rows[:1])
    site.run()
    (customer,) = site.kustomer.customers
    customer["attributes"]["emails"][0]["email"] = "ada@münchen.example"
    found = site.kustomer._records._found
    found["customers", "email", "ada@münchen.example"] = customer
    del found["customers", "email", "ada@xn--mnchen-3ya.example"]
    site.put(rows)
    result = site.run()
    assert (result["created"], result["customers"]) == (3, 0)
    assert len(site.kustomer.customers) == 1


def test_what_a_sandbox_has_recorded_counts_nowhere_else(site: Site) -> None:
    """The same file is imported into another organisation from its first row, and as fresh as it is there."""
    rows = history(30, threads=5)
    site.put(rows)
    site.run(fresh=True)
    with Kustomer(limit=1_000_000) as other:
        other.now = lambda: site.kustomer.now()
        live = Site(other, site.files)
        assert live.run(fresh=True)["created"] == 30
        live.assert_once(rows)
        assert not [seen for seen in other.gets if "externalId" in seen.path]
    assert site.run()["requests"] == 1, "each organisation has notes of its own"


def test_fresh_is_not_believed_of_rows_that_came_back(site: Site) -> None:
    """The threads of refused rows are there from the import that has refused them."""
    rows = history(20, threads=4)
    site.put([{**row, "sentAt": "soon"} if at == 7 else row for at, row in enumerate(rows)])
    refused = site.run(fresh=True)["refused_rows"]
    site.files[refused] = site.files[refused].replace(b"soon", rows[7]["sentAt"].encode())
    assert site.run(fresh=True, file={"s3": refused})["created"] == 1
    site.assert_once(rows)


def test_unknown_rows_are_not_among_those_to_import_elsewhere(site: Site) -> None:
    """A job that is stuck may record them yet, which an import of another file does not know."""
    rows = history(20, threads=4)
    site.put([*rows, {**rows[0], "messageId": None}])
    site.kustomer.jobs.next(Bulk(stuck_after=5), "messages")
    result = site.run()
    assert (result["unknown"], result["refused"]) == (15, 1)
    (line,) = site.files[result["refused_rows"]].splitlines()
    assert json.loads(line)["messageId"] is None


def test_a_customer_whom_kustomer_will_not_look_for_stops_nobody_else(site: Site) -> None:
    """Their threads are refused with the reason that it gave for not making them."""
    rows = history(20, threads=4, customers=4)
    site.put(rows)
    odd = "customer-2%40example.com"

    def fails(item: Item) -> str | None:
        return "no valid address" if "customer-2" in json.dumps(item.get("emails", "")) else None

    site.kustomer.jobs.bulk = Bulk(fails=fails)
    site.kustomer.fault(Fault.answer(400, {"errors": []}, on="GET", at=f"/v1/customers/email={odd}"))
    result = site.run()
    assert result["refused"] == sum(row["email"].startswith("customer-2") for row in rows)
    assert result["created"] == 20 - result["refused"]
    assert "no valid address" in result["reasons"][0]["title"]
    assert not result["remarks"]


@pytest.mark.parametrize(
    "change", [{"limit": 100}, {"app": "other"}, {"seconds": 20}], ids=lambda each: next(iter(each))
)
def test_what_shows_late_is_not_recorded_again_by_the_next_run(site: Site, change: dict[str, Any]) -> None:
    """No page says how soon look-ups and lists show what a job has recorded; the next run begins a minute later."""
    rows = history(300, threads=60)
    site.put(rows)
    site.kustomer.jobs.bulk = Bulk(per_item=0.05)
    site.kustomer.lag = 40
    try:
        first = site.run(fresh=True, **change)
        assert first["created"]
        again = site.run(fresh=True)
    finally:
        site.kustomer.lag = 0
    assert again["created"] + again["already"] == 300
    site.assert_once(rows)


@pytest.mark.usefixtures("small_parts")
def test_customers_whom_another_part_has_just_made_are_found_when_they_show(site: Site) -> None:
    """Kustomer knows that they are taken before it shows them."""
    rows = history(60, threads=20, customers=3)
    site.put(rows)
    site.kustomer.lag = 40
    try:
        results = [site.run(part=part, fresh=True) for part in range(2)]
    finally:
        site.kustomer.lag = 0
    assert [each["refused"] for each in results] == [0, 0]
    site.assert_once(rows)


# Two runs at once


def test_two_runs_at_once_record_once(site: Site) -> None:
    """One of them ends, in words, and has sent nothing."""
    rows = history(200, threads=40)
    site.put(rows)

    def run(_: int) -> Any:
        try:
            return site.run(fresh=True)
        except AtWork as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(run, range(2)))
    ended = [each for each in results if isinstance(each, AtWork)]
    assert sum(each["created"] for each in results if not isinstance(each, AtWork)) == 200
    assert [each.outcome for each in ended] in ([], ["not_sent"])
    site.assert_once(rows)


@pytest.mark.parametrize("app", ["old-helpdesk", "other"])
def test_a_run_that_was_suspended_ends_once_another_has_taken_over(
    site: Site, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may sleep for longer than anybody waits for a sign of life."""
    rows = history(60, threads=10)
    site.put(rows)
    write, overtaken = storage.write, list[Any]()

    def suspended(stored: Any, content: Any) -> None:
        write(stored, content)
        if not overtaken and b'"kind": "message", "job": "' in content:
            overtaken.append(None)
            site.kustomer.advance(1_000)
            overtaken[0] = site.run(app=app)

    monkeypatch.setattr(storage, "write", suspended)
    result = site.run(fresh=True)
    assert "taken this part over" in result["remarks"][-1]
    site.kustomer.advance(1_000)
    assert site.run()["already"] == 60
    site.assert_once(rows)


@pytest.mark.parametrize("content", [b"", b'{"import": "x", "parts"', b"[]", b'{"done": 3}', b"null"])
def test_a_note_that_can_not_be_read_is_an_error_that_names_it(site: Site, content: bytes) -> None:
    """With what deleting it costs; it is never taken for none."""
    rows = history(10)
    site.put(rows)
    site.run(fresh=True)
    (note,) = [key for key in site.files if "part-0000" in key]
    site.files[note] = content
    sent = len(site.kustomer.requests)
    with pytest.raises(FileNotRead, match=re.escape(note)) as raised:
        site.run(fresh=True)
    assert "elete it" in str(raised.value)
    assert len(site.kustomer.requests) == sent + 1
    del site.files[note]
    assert site.run()["already"] == 10


# What a server may say


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, {"errors": [{"title": "no such route"}]}), (402, {"errors": []}), (400, b"<html>"), (200, b"<html>")],
)
def test_what_a_server_says_of_a_whole_submit_stops_the_import(site: Site, status: int, body: Any) -> None:
    """No row is told that it is wrong, and what the server said is told."""
    site.put(history(100, threads=20))
    for _ in range(300):
        site.kustomer.fault(Fault.answer(status, body, at=SUBMITS[2]))
    result = site.run()
    site.kustomer._faults.clear()
    assert (result["created"], result["refused"]) == (0, 0)
    assert str(status) in result["remarks"][-1]
    assert sum(seen.path == SUBMITS[2] for seen in site.kustomer.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [{"data": [None]}, {"data": [{"id": "1", "attributes": []}]}, {"data": [7]}, {"data": {}}, [], b"<html>"],
    ids=str,
)
def test_a_list_that_is_none_is_no_list_of_nothing(site: Site, answer: Any) -> None:
    """What is there would be recorded again."""
    rows = history(20, threads=2)
    site.put(rows)
    site.run()
    site.put(rows)
    site.kustomer.fault(*[Fault.answer(200, answer, on="GET", at="/v1/conversations/") for _ in range(9)])
    result = site.run(app="other")
    site.kustomer._faults.clear()
    assert result["created"] == 0
    assert "ended before its end" in result["remarks"][-1]
    assert site.run(app="other")["already"] == 20


def test_nothing_that_people_wrote_is_told_where_kustomer_quotes_it(site: Site) -> None:
    """Neither what is in meta and custom, nor the ids of threads and customers, which may be phone numbers."""
    row: Any = {
        **history(1)[0],
        "threadId": "+49 30 1234567",
        "customerExternalId": "shop-1042",
        "meta": {"to": ["secret@acme.example"]},
        "custom": {"noteStr": "a secret note"},
    }
    secrets = [row["threadId"], row["customerExternalId"], row["email"], "secret@acme.example", "a secret note"]
    for kind in ("customers", "conversations", "messages"):
        for whole in (False, True):
            site.clear()
            site.put([row])
            site.kustomer.jobs.next(Bulk(fails=lambda _: f"odd: {secrets}"), kind)
            if whole:
                told = {"errors": [{"title": f"odd: {secrets}"}]}
                site.kustomer.fault(Fault.answer(400, told, at=f"/v1/{kind}/bulk"))
            result = site.run()
            assert result["refused"] == 1, (kind, whole, result)
            assert not [each for each in secrets if each in json.dumps(result)], kind

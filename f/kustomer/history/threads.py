"""History threads.

Shared by the steps that import old messages, not run by itself: puts the threads of a part onto Kustomer's timelines, a
hundred at a time: their customers, their conversations, their messages.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from f.kustomer.find_customer import lookup_keys, new_customer
from f.kustomer.history.jobs import KEPT, SETTLE_SECONDS, STUCK, BulkJobs, Note, TimeIsUp, Unsettled
from f.kustomer.history.plan import WAVE, Plan, Row, Thread, customer_key
from f.kustomer.shared.client import KustomerError, RecordKind, Rejected, dig

# What was submitted, and whose bulk job nobody knows, may appear for so long; what two looks don't show that are so far
# apart was never taken.
LATEST_SECONDS = 900.0
# A bulk job that isn't done after a day never will be.
GIVEN_UP_SECONDS = 86_400.0
# Files that fail one after the other do so for a reason that isn't theirs.
MOST_FAILED_FILES = 3

# What Kustomer may say of a record that is there: only "duplicate detected", of a customer, is documented.
TAKEN = re.compile("(?i)duplicate|already|exist|unique|taken|conflict")


CUSTOMERS, CONVERSATIONS, MESSAGES = (
    RecordKind(name, role=f"org.permission.{name}.create", not_sent_text=KEPT, quiet=True)
    for name in ("customer", "conversation", "message")
)


class Place(NamedTuple):
    """Where the messages of a thread go: ids in Kustomer."""

    conversation: str
    customer: str


class Part:
    """The import of one part of a file.

    ``stopped`` says why it has ended before its end; ``customers`` and ``conversations`` are how many it has made.
    """

    def __init__(self, plan: Plan, jobs: BulkJobs, part: int, fresh: bool) -> None:
        """Take what to import and by what, and whether nothing of it is recorded yet."""
        self._plan, self._jobs, self._part, self._fresh = plan, jobs, part, fresh
        self._notes = jobs.notes
        self._imported_at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._customers: dict[str, str] = {}
        self._places: dict[str, Place] = {}
        self._begun_before = 0
        self._failed_files = 0  # one after the other
        self._waited = False  # for a moment that stays the same in the next run
        self.stopped = ""
        self.customers = self.conversations = 0

    @property
    def comes_on(self) -> bool:
        """Whether this run has recorded something, or waited for what the next one needs not wait for."""
        return self._waited or self.customers + self.conversations + self._plan.counts()["created"] > 0

    def run(self) -> None:
        """Import what is left, until all is done or nothing more can be. Raise KustomerError where it can't begin."""
        self._notes.claim()
        try:
            self._run()
        except TimeIsUp:
            in_vain = "" if self.comes_on else " Nothing was recorded in it: give it more seconds."
            self.stopped = f"The time that was given is over.{in_vain}"
        except Unsettled as unsettled:
            self.stopped = f"{unsettled}. Run the import again in a quarter of an hour: it looks then, and goes on."
        except KustomerError as error:
            self.stopped = str(error)
        with suppress(KustomerError):  # the next run looks for what this one has done without it, too
            self._notes.save(at_work=False)
        under_way = self._notes.under_way
        if under_way and under_way["kind"] == MESSAGES.name:
            why = "was submitted, and what became of it is not known: run the import again in a quarter of an hour"
            self._plan.leave_unknown(under_way["rows"], why)

    def _run(self) -> None:
        notes, plan = self._notes, self._plan
        self._begun_before = notes.begun
        plan.mark_done(self._part, notes.done, notes.behind)
        self._recover()
        behind = plan.threads_at(notes.behind)
        for at in range(0, len(behind), WAVE):
            self._wave(behind[at : at + WAVE], behind[at : at + WAVE])
        fresh = self._fresh and not notes.others
        while threads := plan.threads(self._part, notes.done, WAVE):
            known = [each for each in threads if not fresh or each.first <= self._begun_before]
            notes.begun = max(notes.begun, threads[-1].first)
            self._wave(threads, known)
            notes.done = threads[-1].first

    def _wave(self, threads: list[Thread], known: list[Thread]) -> None:
        """Import these threads; of the ``known`` ones something may be recorded."""
        self._places = {}
        for thread in known:
            self._look_for(thread)
        new = [each for each in threads if each.id not in self._places]
        self._make_customers(new)
        self._make_conversations(new)
        self._make_messages([each for each in threads if each.id in self._places])
        others = set(self._notes.behind) - {each.first for each in threads}
        self._notes.behind = sorted(others.union(self._plan.unfinished(threads)))

    # What is there already

    def _recover(self) -> None:
        """Wait until nothing is under way that an earlier run has submitted, or it is known that it never will be."""
        notes = self._notes
        for each in notes.inherited:
            self._await(each)
        notes.inherited = []
        if notes.under_way:
            self._await(notes.under_way)
            notes.under_way = None
        # What was recorded last may not be shown yet, and would be sent again.
        if notes.behind or self._plan.threads(self._part, notes.done, 1):
            self._wait_until(notes.recorded_at + SETTLE_SECONDS)

    def _await(self, under_way: Note) -> None:
        """Wait for the end of what an earlier run has submitted. Raise KustomerError, TimeIsUp, Unsettled."""
        if under_way["job"] and time.time() - under_way["at"] < GIVEN_UP_SECONDS:
            if not self._jobs.ends(under_way["job"]):
                raise Unsettled(STUCK)
            self._notes.recorded_at = time.time()
            return
        if not under_way["looked"]:
            for thread in self._plan.find(under_way["threads"]):
                self._look_for(thread)
                if thread.id not in self._places:
                    self._find_customer(self._plan.speaker(thread).customer)
            under_way["looked"] = time.time()
        self._wait_until(under_way["looked"] + LATEST_SECONDS)

    def _wait_until(self, at: float) -> None:
        """Wait until a time in epoch seconds. Raise TimeIsUp."""
        if (seconds := at - time.time()) > 0:
            self._waited = True
            self._jobs.pace.sleep(seconds)

    def _look_for(self, thread: Thread) -> None:
        """Find a thread's conversation, and which of its messages are there; refuse the others if it is not theirs."""
        place = self._find_conversation(thread.id)
        if not place:
            return
        self._places[thread.id] = place
        there = self._message_ids(place)
        self._plan.mark([number for number, message in self._plan.ids(thread) if message in there], "already")
        missing = [number for number, _ in self._plan.ids(thread)]
        if not missing or not place.customer:
            return
        speaker = self._plan.speaker(thread)
        key = customer_key(speaker.customer)
        customer = self._customers.get(key) or self._find_customer(speaker.customer)
        if customer == place.customer:
            self._customers[key] = customer
            return
        why = f"is that of conversation {place.conversation} in Kustomer, which is with another customer"
        for number in missing:
            self._plan.refuse(number, [("threadId", f"{why}: give these threads ids of their own")])

    def _find_conversation(self, thread_id: str) -> Place | None:
        keys = [("externalId", thread_id)]
        found = self._jobs.call(CONVERSATIONS, lambda run: run.find("/v1/conversations", keys), [thread_id])
        if not found:
            return None
        return Place(found["data"]["id"], _id_of(found, "customer"))

    def _message_ids(self, place: Place) -> dict[str, str]:
        """Return the messages that a conversation has, whoever recorded them: their ids, each by its externalId."""
        there = self._jobs.listed(MESSAGES, f"/v1/conversations/{place.conversation}/messages")
        return {str(each.get("externalId")): str(each["id"]) for each in there}

    # Customers

    def _make_customers(self, threads: list[Thread]) -> None:
        """Make the customers of new conversations; those whom Kustomer refuses are looked for, as they may be there."""
        wanted: dict[str, Row] = {}
        of_customer: dict[str, list[Thread]] = {}
        for thread in threads:
            row = self._plan.speaker(thread)
            key = customer_key(row.customer)
            of_customer.setdefault(key, []).append(thread)
            if key not in self._customers:
                wanted.setdefault(key, row)
        for key, row in wanted.items():
            # Kustomer compares one spelling only, and what an earlier job has begun, it need not refuse to begin again.
            spellings = [name for name, _ in lookup_keys(row.customer) if name == "email"]
            doubtful = len(spellings) > 1 or of_customer[key][0].first <= self._begun_before
            if doubtful and (customer := self._find_customer(row.customer)):
                self._customers[key] = customer
        rows = {str(row.number): row for key, row in wanted.items() if key not in self._customers}

        def look(refs: Iterable[str]) -> dict[str, str]:
            there = {ref: self._find_customer(rows[ref].customer) for ref in refs}
            return {ref: each for ref, each in there.items() if each}

        bodies = ((ref, {**new_customer(row.customer), "importedAt": self._imported_at}) for ref, row in rows.items())
        for results in self._jobs.create(CUSTOMERS, bodies, look):
            self.customers += len(results.created)
            there = results.created | look(results.refused)
            taken = [ref for ref, why in results.refused.items() if ref not in there and TAKEN.search(why)]
            if taken:  # somebody has made them just now
                self._jobs.pace.sleep(SETTLE_SECONDS)
                there |= look(taken)
            for ref, customer in there.items():
                self._customers[customer_key(rows[ref].customer)] = customer
            for ref in results.refused.keys() - there.keys():
                self._refuse(of_customer[customer_key(rows[ref].customer)], "customer", results.refused[ref])

    def _find_customer(self, customer: dict[str, str]) -> str:
        keys = lookup_keys(customer)
        hidden = [value for _, value in keys]
        try:
            found = self._jobs.call(CUSTOMERS, lambda run: run.find("/v1/customers", keys), hidden)
        except Rejected:  # nobody has what Kustomer doesn't even look for, and a submit tells what is wrong with it
            return ""
        return str(dig(found, "data", "id") or "")

    # Conversations

    def _make_conversations(self, threads: list[Thread]) -> None:
        """Make the conversations of threads whose customers are known."""
        customers = {each: self._customers.get(customer_key(self._plan.speaker(each).customer)) for each in threads}
        by_ref = {str(each.first): each for each, customer in customers.items() if customer}

        def look(refs: Iterable[str]) -> dict[str, str]:
            there = {ref: self._find_conversation(by_ref[ref].id) for ref in refs}
            return {ref: each.conversation for ref, each in there.items() if each}

        bodies = ((ref, self._conversation(each, str(customers[each]))) for ref, each in by_ref.items())
        for results in self._jobs.create(CONVERSATIONS, bodies, look):
            self.conversations += len(results.created)
            for ref, conversation in results.created.items():
                self._places[by_ref[ref].id] = Place(conversation, str(customers[by_ref[ref]]))
            for ref, why in results.refused.items():  # somebody else may have made it meanwhile
                self._look_for(by_ref[ref])
                if by_ref[ref].id not in self._places:
                    self._refuse([by_ref[ref]], "threadId", why)

    def _conversation(self, thread: Thread, customer: str) -> dict[str, Any]:
        oldest = self._plan.oldest(thread)
        return {
            "customer": customer,
            "externalId": thread.id,
            "status": "done",
            "importedAt": self._imported_at,
            "createdAt": oldest.sent_at,
            **({"name": oldest.body["subject"]} if "subject" in oldest.body else {}),
        }

    def _refuse(self, threads: Iterable[Thread], path: str, why: str) -> None:
        """Refuse what is left of these threads, as Kustomer refuses what they need."""
        for thread in threads:
            for number, _ in self._plan.ids(thread):
                self._plan.refuse(number, [(path, f"was refused by Kustomer: {why}")])

    # Messages

    def _make_messages(self, threads: list[Thread]) -> None:
        """Make the messages of threads whose conversations are there, the oldest first."""

        def look(refs: Iterable[str]) -> dict[str, str]:
            rows = [self._plan.message(int(ref)) for ref in refs]
            there = {thread: self._message_ids(self._places[thread]) for thread in {row.thread_id for row in rows}}
            ids = {str(row.number): there[row.thread_id].get(row.message_id) for row in rows}
            return {ref: each for ref, each in ids.items() if each}

        for results in self._jobs.create(MESSAGES, self._messages(self._plan.order(threads)), look):
            self._plan.mark(map(int, results.created), "created")
            for ref, why in results.refused.items():
                self._message_refused(self._plan.message(int(ref)), why)

    def _message_refused(self, row: Row, why: str) -> None:
        """Note why Kustomer refuses a message, unless that is because it is there."""
        keys = [("externalId", row.message_id)]
        found = None
        if TAKEN.search(why):
            found = self._jobs.call(MESSAGES, lambda run: run.find("/v1/messages", keys), [row.message_id])
        if not found:
            self._plan.refuse(row.number, [("", f"was refused by Kustomer: {why}")])
        elif (where := _id_of(found, "conversation")) == self._places[row.thread_id].conversation:
            self._plan.mark([row.number], "already")
        else:
            self._plan.refuse(row.number, [("messageId", f"is that of a message in conversation {where} already")])

    def _messages(self, numbers: Iterable[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Return the bodies of messages, each made when its files are there."""
        for number in numbers:
            row = self._plan.message(number)
            place = self._places[row.thread_id]
            body = {
                **row.body,
                "conversation": place.conversation,
                **({"customer": place.customer} if place.customer else {}),
                "importedAt": self._imported_at,
                "createdAt": row.sent_at,
            }
            if not row.files:
                yield str(number), body
            elif attachments := self._attached(row):
                yield str(number), {**body, "attachments": attachments}

    def _attached(self, row: Row) -> list[dict[str, Any]]:
        """Return the attachments for a row's files; none where one fails, which leaves the row to the next run."""
        from f.kustomer.upload_attachment import ATTACHMENT, attach  # which only files pay

        kind = ATTACHMENT._replace(quiet=True)
        attachments = []
        for at, file in enumerate(row.files):
            path = f"files[{at}]"
            if self._failed_files >= MOST_FAILED_FILES:
                why = f"was not sent, as {MOST_FAILED_FILES} files before it have failed"
                self._plan.tell(row.number, [(path, f"{why}: the next run sends it")])
                return []
            hidden = [file["externalUrl"]] if "externalUrl" in file else []  # it may let in whoever has it
            try:
                attachments.append(self._jobs.call(kind, partial(attach, given=file, path=path), hidden))
                self._failed_files = 0
            except KustomerError as error:
                self._failed_files += error.retryable  # else it is the file's own fault
                self._plan.tell(row.number, [(path, f"failed, so that this row is left: {error}")])
                return []
        return attachments


def _id_of(found: dict[str, Any], name: str) -> str:
    return str(dig(found, "data", "relationships", name, "data", "id") or "")

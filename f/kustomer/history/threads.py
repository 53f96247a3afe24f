"""History import.

Shared by the steps that import old messages, not run by itself: puts the threads of a part onto Kustomer's timelines,
some hundreds at a time: their customers, their conversations, their messages.
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from f.kustomer.find_customer import lookup_keys, new_customer
from f.kustomer.history.jobs import KEPT, SETTLE_SECONDS, Jobs, Kind, Look, Made, Stuck, Work, without_secrets
from f.kustomer.history.notes import GIVEN_UP_SECONDS, Note, thread_name
from f.kustomer.history.pace import TimeIsUp
from f.kustomer.history.plan import Plan, Thread, customer_key
from f.kustomer.history.rows import Row
from f.kustomer.shared.client import dig
from f.kustomer.shared.errors import KustomerError, RecordKind, Rejected
from f.kustomer.upload_attachment import ATTACHMENT, attach

# Of so many threads something may be recorded when a job is killed: the next one looks for these.
WAVE = 100
# Threads that take turns share more jobs when there are more of them.
WAVE_IN_TURN = 500

# What Kustomer may say of a message that is there: only "duplicate detected", of a customer, is documented.
TAKEN = re.compile("(?i)duplicate|already|exist|unique|taken|conflict")


def _kind(name: str) -> Kind:
    role = f"org.permission.{name}.create"
    return Kind(f"{name}s", RecordKind(name, role=role, not_sent_text=KEPT, quiet=True))


CUSTOMERS, CONVERSATIONS, MESSAGES = map(_kind, ("customer", "conversation", "message"))
ATTACHMENTS = ATTACHMENT._replace(quiet=True)


class Place(NamedTuple):
    """Where the messages of a thread go: ids in Kustomer."""

    conversation: str
    customer: str


class Import:
    """The import of one part; ``stopped`` says why it has ended before its end."""

    def __init__(self, plan: Plan, jobs: Jobs, *, dates: bool, fresh: bool) -> None:
        """Take what to import and how, whether the key may set dates, and whether nothing of it is recorded yet."""
        self.plan, self._jobs, self._dates, self._fresh = plan, jobs, dates, fresh
        self._notes = jobs.notes
        self._imported_at = _iso(datetime.now(UTC))
        self._customers: dict[str, str] = {}
        self._places: dict[str, Place] = {}
        self._made = {CUSTOMERS: 0, CONVERSATIONS: 0}
        self.stopped = ""
        self._begun_before = 0
        self._waited = False  # for what was recorded before this run to be shown

    @property
    def customers(self) -> int:
        """How many customers this run has made."""
        return self._made[CUSTOMERS]

    @property
    def conversations(self) -> int:
        """How many conversations this run has made."""
        return self._made[CONVERSATIONS]

    @property
    def comes_on(self) -> bool:
        """Whether this run has recorded something, or had to wait, which the next one has not."""
        return self._waited or self.customers + self.conversations + self.plan.counts()["created"] > 0

    @property
    def requests(self) -> int:
        """How many requests this run has sent."""
        return self._jobs.requests

    def run(self) -> None:
        """Import what is left, until all is done or nothing more can be."""
        try:
            self._run()
        except TimeIsUp:
            in_vain = "" if self.comes_on else " Nothing was recorded in it: give it more seconds."
            self.stopped = f"The time that was given is over.{in_vain}"
        except Stuck:
            self.stopped = "A bulk job of Kustomer's has not ended within a quarter of an hour."
        except KustomerError as error:
            self.stopped = str(error)
        with suppress(KustomerError):  # the next run looks for what this one has done without it, too
            self._notes.save()
        under_way = self._notes.under_way or {"threads": [], "rows": []}
        left = {number for thread in self.plan.find(under_way["threads"]) for number, _ in self.plan.ids(thread)}
        for number in left & set(under_way["rows"]):
            self.plan.mark([number], "unknown")
            self.plan.tell(number, [("", "was submitted, and what became of it is not known: run the import again")])

    def _run(self) -> None:
        notes, plan = self._notes, self.plan
        self._begun_before = notes.begun
        plan.mark_done(notes.done, notes.again)
        self._recover()
        touched = notes.touched() if self._fresh else None
        size = WAVE if self._dates else WAVE_IN_TURN
        again = [thread for first in notes.again if (thread := plan.thread(first))]
        for at in range(0, len(again), size):
            self._wave(again[at : at + size], again[at : at + size])
        while threads := plan.threads(notes.done, size):
            known = [
                each
                for each in threads
                if touched is None or each.first <= notes.begun or thread_name(each.id) in touched
            ]
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
        others = set(self._notes.again) - {each.first for each in threads}
        self._notes.again = sorted(others.union(self.plan.unfinished(threads)))

    # What is there already

    def _recover(self) -> None:
        """Wait until nothing is under way that was submitted by an earlier job, or know that it never will be."""
        for note in [*self._notes.others_under_way(), *filter(None, [self._notes.under_way])]:
            threads = self.plan.find(note["threads"])
            if not threads:
                continue
            if not note["job"] or _given_up(note):
                self._jobs.settle(partial(self._all_seen, threads))
                continue
            if not self._jobs.ends(note["job"]):
                for thread in threads:
                    self._look_for(thread)
                raise Stuck
            self._notes.ended()
        self._notes.under_way = None
        # What an earlier job has just recorded may not be shown yet, and would be sent again.
        seconds = self._notes.recorded_at + SETTLE_SECONDS - time.time()
        if seconds > 0 and (self._notes.again or self.plan.threads(self._notes.done, 1)):
            self._waited = True
            self._jobs.pace.sleep(seconds)

    def _all_seen(self, threads: list[Thread]) -> list[Any]:
        return [self._seen(each) for each in threads]

    def _seen(self, thread: Thread) -> Any:
        """Return what Kustomer has of a thread, to be compared."""
        if place := self._find_conversation(thread.id):
            return place, self._message_ids(place)
        return self._find_customer(self.plan.first_message(thread).customer)

    def _look_for(self, thread: Thread) -> None:
        """Find a thread's conversation, and which of its messages are there."""
        place = self._find_conversation(thread.id)
        if not place:
            return
        self._places[thread.id] = place
        there = self._message_ids(place)
        self.plan.mark([number for number, message in self.plan.ids(thread) if message in there], "already")

    def _find_conversation(self, thread_id: str) -> Place | None:
        found = self._jobs.call(
            CONVERSATIONS.record, lambda run: run.find("/v1/conversations", [("externalId", thread_id)])
        )
        if not found:
            return None
        customer = dig(found, "data", "relationships", "customer", "data", "id")
        return Place(found["data"]["id"], customer or "")

    def _message_ids(self, place: Place) -> dict[str, str]:
        """Return the messages that a conversation has, whoever recorded them: their ids, each by its externalId."""
        found = self._jobs.listed(MESSAGES.record, f"/v1/conversations/{place.conversation}/messages")
        return {str(dig(each, "attributes", "externalId")): str(each.get("id")) for each in found}

    # Customers

    def _make_customers(self, threads: list[Thread]) -> None:
        """Make the customers of new conversations; those whom Kustomer refuses are looked for, as they may be there."""
        wanted: dict[str, Row] = {}
        of_customer: dict[str, list[Thread]] = {}
        for thread in threads:
            row = self.plan.first_message(thread)
            key = customer_key(row.customer)
            of_customer.setdefault(key, []).append(thread)
            if key not in self._customers:
                wanted.setdefault(key, row)
        for key, row in wanted.items():
            # Kustomer compares one spelling only, and what an earlier job has begun, it need not refuse to begin again.
            spellings = [name for name, _ in lookup_keys(row.customer) if name == "email"]
            doubtful = len(spellings) > 1 or of_customer[key][0].first <= self._begun_before
            if doubtful and (found := self._find_customer(row.customer)):
                self._customers[key] = found
        refs = {str(row.number): key for key, row in wanted.items() if key not in self._customers}
        rows = {ref: wanted[key] for ref, key in refs.items()}

        def look(wanted_refs: Iterable[str]) -> dict[str, str]:
            found = {ref: self._find_customer(rows[ref].customer) for ref in wanted_refs}
            return {ref: each for ref, each in found.items() if each}

        def tell(made: dict[str, Made]) -> None:
            there = self._there_after_all(made, look)
            for ref, each in made.items():
                self._made[CUSTOMERS] += each.status == "created"
                if found := each.id or there.get(ref):
                    self._customers[refs[ref]] = found
                elif each.status == "refused":
                    self._refuse_threads(of_customer[refs[ref]], "customer", each.why, rows[ref])

        def about(some: Iterable[str]) -> tuple[list[str], list[int]]:
            return [thread.id for ref in some for thread in of_customer[refs[ref]]], []

        bodies = ((ref, {**new_customer(row.customer), "importedAt": self._imported_at}) for ref, row in rows.items())
        self._jobs.make(Work(CUSTOMERS, look, about, tell), bodies)

    def _there_after_all(self, made: dict[str, Made], look: Look) -> dict[str, str]:
        """Return the ids of customers whom Kustomer refuses because somebody has made them, perhaps just now."""
        refused = [ref for ref, each in made.items() if each.status == "refused"]
        there = look(refused)
        late = [ref for ref in refused if ref not in there and TAKEN.search(made[ref].why)]
        if late:
            self._jobs.pace.sleep(SETTLE_SECONDS)
            there |= look(late)
        return there

    def _find_customer(self, customer: dict[str, str]) -> str:
        keys = lookup_keys(customer)
        hidden = [value for _, value in keys]
        try:
            found = self._jobs.call(CUSTOMERS.record, lambda run: run.find("/v1/customers", keys), hidden)
        except Rejected:  # nobody has what Kustomer doesn't even look for, and a submit tells what is wrong with it
            return ""
        return str(dig(found, "data", "id") or "")

    # Conversations

    def _make_conversations(self, threads: list[Thread]) -> None:
        """Make the conversations of threads whose customers are known."""
        by_ref = {str(each.first): each for each in threads}

        def look(refs: Iterable[str]) -> dict[str, str]:
            found = {ref: self._find_conversation(by_ref[ref].id) for ref in refs}
            return {ref: each.conversation for ref, each in found.items() if each}

        def tell(made: dict[str, Made]) -> None:
            for ref, each in made.items():
                self._made[CONVERSATIONS] += each.status == "created"
                self._conversation_made(by_ref[ref], each)

        def about(refs: Iterable[str]) -> tuple[list[str], list[int]]:
            return [by_ref[ref].id for ref in refs], []

        self._jobs.make(Work(CONVERSATIONS, look, about, tell), self._conversations(threads))

    def _conversation_made(self, thread: Thread, made: Made) -> None:
        first = self.plan.first_message(thread)
        if made.status == "created":
            self._places[thread.id] = Place(made.id, self._customers[customer_key(first.customer)])
        elif made.status == "refused":  # somebody else may have made it meanwhile
            self._look_for(thread)
            if thread.id not in self._places:
                self._refuse_threads([thread], "threadId", made.why, first)

    def _conversations(self, threads: list[Thread]) -> Iterator[tuple[str, dict[str, Any]]]:
        for thread in threads:
            first = self.plan.first_message(thread)
            customer = self._customers.get(customer_key(first.customer))
            if not customer:
                continue
            body = {
                "customer": customer,
                "externalId": thread.id,
                "status": "done",
                "importedAt": self._imported_at,
                **({"name": first.body["subject"]} if "subject" in first.body else {}),
                **({"createdAt": first.sent_at} if self._dates else {}),
            }
            yield str(thread.first), body

    def _refuse_threads(self, threads: Iterable[Thread], path: str, why: str, row: Row) -> None:
        """Refuse what is left of these threads, as Kustomer refuses what they need."""
        why = without_secrets(why, *_secrets(row))
        for thread in threads:
            for number, _ in self.plan.ids(thread):
                self.plan.refuse(number, [(path, f"was refused by Kustomer: {why}")])

    # Messages

    def _make_messages(self, threads: list[Thread]) -> None:
        """Make the messages of threads whose conversations are there, the oldest first."""
        # Without dates of their own, messages stand in the order in which they are stored, which a job leaves open.
        alone = None if self._dates else _conversation_of
        work = Work(MESSAGES, self._messages_there, self._about_messages, self._messages_made, alone)
        self._jobs.make(work, self._messages(self.plan.order(threads, in_turn=not self._dates)))

    def _messages_there(self, refs: Iterable[str]) -> dict[str, str]:
        rows = [self.plan.message(int(ref)) for ref in refs]
        there = {thread: self._message_ids(self._places[thread]) for thread in {row.thread_id for row in rows}}
        ids = {str(row.number): there[row.thread_id].get(row.message_id) for row in rows}
        return {ref: each for ref, each in ids.items() if each}

    def _about_messages(self, refs: Iterable[str]) -> tuple[list[str], list[int]]:
        rows = [self.plan.message(int(ref)) for ref in refs]
        return sorted({row.thread_id for row in rows}), [row.number for row in rows]

    def _messages_made(self, made: dict[str, Made]) -> None:
        self.plan.mark((int(ref) for ref, each in made.items() if each.status == "created"), "created")
        for ref, each in made.items():
            if each.status == "refused":
                self._message_refused(self.plan.message(int(ref)), each.why)

    def _message_refused(self, row: Row, why: str) -> None:
        """Note why Kustomer refuses a message, unless that is because it is there."""
        keys = [("externalId", row.message_id)]
        if TAKEN.search(why) and self._jobs.call(MESSAGES.record, lambda run: run.find("/v1/messages", keys)):
            self.plan.mark([row.number], "already")
            return
        self.plan.refuse(row.number, [("", f"was refused by Kustomer: {without_secrets(why, *_secrets(row))}")])

    def _messages(self, numbers: Iterable[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Return the bodies of messages, each made when its files are there."""
        for number in numbers:
            row = self.plan.message(number)
            place = self._places[row.thread_id]
            body = {
                **row.body,
                "externalId": row.message_id,
                "conversation": place.conversation,
                **({"customer": place.customer} if place.customer else {}),
                "sentAt": row.sent_at,
                "importedAt": self._imported_at,
                **({"createdAt": row.sent_at} if self._dates else {}),
            }
            if not row.files:
                yield str(number), body
            elif attachments := self._attached(row):
                yield str(number), {**body, "attachments": attachments}

    def _attached(self, row: Row) -> list[dict[str, Any]]:
        """Return the attachments for a row's files; none where one fails, which leaves the row to the next run."""
        made = []
        for at, file in enumerate(row.files):
            attach_it = partial(attach, given=file, path=f"files[{at}]")
            hidden = [file["externalUrl"]] if "externalUrl" in file else []  # it may let in whoever has it
            try:
                made.append(self._jobs.call(ATTACHMENTS, attach_it, hidden))
            except KustomerError as error:
                self.plan.tell(row.number, [(f"files[{at}]", f"failed, so that this row is left: {error}")])
                return []
        return made


def _secrets(row: Row) -> list[str]:
    """Return what of a row must not be told."""
    return [*row.customer.values(), *(str(row.body[name]) for name in ("preview", "subject") if name in row.body)]


def _conversation_of(item: tuple[str, dict[str, Any]]) -> object:
    return item[1]["conversation"]


def _given_up(note: Note) -> bool:
    return time.time() - float(note["at"]) > GIVEN_UP_SECONDS


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")

"""An import that is killed at any moment and run again records each message once."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from f.kustomer.history import notes, plan, threads
from f.kustomer.shared import client
from f.kustomer.shared.wire import Reply, exchange
from tests.history.conftest import Site, history
from tests.standin.bulk import Bulk

ROWS = history(16, threads=5, customers=3)


class KilledError(BaseException):
    """SIGKILL as seen from inside: nothing of the import runs any more."""


class Death:
    """Kills the import at its nth request or note, before it or after it."""

    def __init__(self) -> None:
        """Nobody dies unless told."""
        self.what, self.at, self.after = "", 0, False

    def plan(self, what: str, at: int, after: bool) -> None:
        """Let the import die at the ``at``th request or note, counted from 1."""
        self.what, self.at, self.after = what, at, after

    def at_each(self, do: Callable[..., Any], *names: str) -> Callable[..., Any]:
        """Return ``do`` as something at which the import may die; its first argument may be one of its names."""

        def may_die(*given: Any) -> Any:
            here = self.what in (*names, given[0]) if isinstance(given[0], str) else self.what in names
            self.at -= here
            if here and self.at == 0 and not self.after:
                raise KilledError
            result = do(*given)
            if here and self.at == 0:
                if isinstance(result, Reply):
                    result.settle(False)  # its connection would die with the process
                raise KilledError
            return result

        return may_die


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch, site: Site) -> Death:
    """What kills the import; requests and threads are few, as it runs many times."""
    death, write = Death(), vars(notes)["write"]
    monkeypatch.setattr(notes, "write", death.at_each(write, "note"))
    monkeypatch.setattr(client, "exchange", death.at_each(exchange, "request"))
    monkeypatch.setattr(threads, "WAVE", 3)
    monkeypatch.setattr(threads, "WAVE_IN_TURN", 3)
    monkeypatch.setattr(plan, "MAX_ITEMS", 4)
    site.put(ROWS)
    return death


def deaths(site: Site, death: Death, what: str, **given: Any) -> Iterator[str]:
    """Begin an import anew again and again, and let each die at a later moment; stop when one lives to its end."""
    for at in range(1, 1_000):
        for after in (False, True):
            site.clear()
            death.plan(what, at, after)
            try:
                site.run(**given)
            except KilledError:
                death.plan("", 0, False)
                yield f"killed {'after' if after else 'before'} {what} {at}"
            else:
                assert at > 7, "it died nowhere"
                return


@pytest.mark.parametrize("later", [0, 60], ids=["at once", "a minute later"])
@pytest.mark.parametrize("fresh", [False, True], ids=["looking", "fresh"])
@pytest.mark.parametrize("what", ["request", "note"])
def test_a_killed_import_run_again_records_each_message_once(
    site: Site, death: Death, what: str, fresh: bool, later: float
) -> None:
    """Whenever it dies, the next run finds out what was recorded, and records the rest."""
    for when in deaths(site, death, what, fresh=fresh):
        site.kustomer.advance(later)
        result = site.run(fresh=fresh)
        assert result["created"] + result["already"] == len(ROWS), (when, result)
        site.kustomer.advance(1_000)  # so that whatever is still under way ends
        site.assert_once(ROWS)


@pytest.mark.parametrize(
    "bulk", [Bulk(delay=70), Bulk(results=False), Bulk(per_item=3)], ids=["late", "silent", "slow"]
)
def test_whatever_kustomers_jobs_are_like(site: Site, death: Death, bulk: Bulk) -> None:
    """Jobs that begin late, tell nothing, or are slow are waited for."""
    site.kustomer.jobs.bulk = bulk
    for when in deaths(site, death, "POST", fresh=True):
        result = site.run(fresh=True)
        assert result["created"] + result["already"] == len(ROWS), (when, result)
        site.kustomer.advance(1_000)  # so that whatever is still under way ends
        site.assert_once(ROWS)


@pytest.mark.parametrize(
    "change",
    [{"app": "other"}, {"limit": 12}, {"parts": 3}, {"file": "corrected"}, {}],
    ids=["app", "limit", "parts", "corrected file", "none"],
)
@pytest.mark.parametrize("later", [0, 60], ids=["at once", "a minute later"])
def test_another_import_knows_what_a_killed_one_had_under_way(
    site: Site, death: Death, change: Any, later: float
) -> None:
    """Somebody cancels, changes a setting or the file, and starts again at once, still saying that all is fresh."""
    rows = [{**row, "text": "corrected"} if at == 3 else row for at, row in enumerate(ROWS)]
    for when in deaths(site, death, "POST", fresh=True):
        site.kustomer.advance(later)
        if change.get("file"):
            site.put(rows)
        given = {name: each for name, each in change.items() if name != "file"}
        results = [site.run(fresh=True, part=part, **given) for part in range(change.get("parts", 1))]
        assert sum(each["created"] + each["already"] for each in results) >= (10 if "limit" in change else 16), when
        assert max(site.recorded().values()) == 1, when
        rest = site.run(fresh=True)
        assert rest["created"] + rest["already"] == 16, when
        site.put(ROWS)
        site.kustomer.advance(1_000)
        assert sorted(site.recorded().values()) == [1] * 16


@pytest.mark.parametrize("fresh", [False, True], ids=["looking", "fresh"])
def test_where_nothing_is_unique_a_killed_import_still_doubles_nothing(
    site: Site, death: Death, fresh: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No page says that Kustomer refuses a second conversation, and customers may share addresses."""
    monkeypatch.setitem(site.kustomer._unique, "customers", frozenset())
    for when in deaths(site, death, "POST", fresh=fresh):
        result = site.run(fresh=fresh)
        assert result["created"] + result["already"] == len(ROWS), when
        site.kustomer.advance(1_000)
        site.assert_once(ROWS)


def test_a_job_whose_id_is_noted_is_waited_for_however_late_it_begins(site: Site, death: Death) -> None:
    """Looks alone would take it for lost: for five minutes they would show nothing, again and again."""
    for at in range(1, 12):
        site.clear()
        site.kustomer.jobs.next(Bulk(delay=300), "messages")
        death.plan("GET", at, after=True)
        with suppress(KilledError):
            site.run(fresh=True)
        death.plan("", 0, False)
        result = site.run(fresh=True)
        assert result["created"] + result["already"] == len(ROWS), at
        site.kustomer.advance(1_000)
        site.assert_once(ROWS)

"""An import that is killed at any moment and run again records each message once."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from f.kustomer import client, history_import, history_plan, storage
from f.kustomer.errors import FileNotRead
from f.kustomer.wire import Reply, exchange
from tests.history.conftest import KEY, Site, history
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

    def at_each(self, what: str, do: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``do`` as something at which the import may die."""

        def may_die(*given: Any) -> Any:
            if self.what == what:
                self.at -= 1
                if self.at == 0 and not self.after:
                    raise KilledError
            result = do(*given)
            if self.what == what and self.at == 0:
                if isinstance(result, Reply):
                    result.settle(False)  # its connection would die with the process
                raise KilledError
            return result

        return may_die


@pytest.fixture
def notes() -> dict[str, bytes]:
    """What is in the object storage."""
    return {KEY: b""}


@pytest.fixture
def death(monkeypatch: pytest.MonkeyPatch, site: Site, notes: dict[str, bytes]) -> Death:
    """What kills the import. Requests and threads are few, and the storage is here, as it runs many times."""
    death = Death()

    def read(stored: Any, path: str = "") -> io.BytesIO:
        if stored["s3"] not in notes:
            raise FileNotRead("404: not there", status=404)
        return io.BytesIO(notes[stored["s3"]])

    def write(stored: Any, content: bytes, path: str = "") -> None:
        notes[stored["s3"]] = content

    def put(rows: list[Any]) -> None:
        Site.put(site, rows)
        notes[KEY] = site.workspace.stored()[KEY]

    monkeypatch.setattr(storage, "read", read)
    monkeypatch.setattr(storage, "write", death.at_each("note", write))
    monkeypatch.setattr(client, "exchange", death.at_each("request", exchange))
    monkeypatch.setattr(history_import, "WAVE", 3)
    monkeypatch.setattr(history_plan, "MAX_ITEMS", 4)
    monkeypatch.setattr(site, "put", put)
    site.put(ROWS)
    return death


def deaths(site: Site, death: Death, notes: dict[str, bytes], what: str, **given: Any) -> Iterator[str]:
    """Begin an import anew again and again, and let each die at a later moment; stop when one lives to its end."""
    for at in range(1, 1_000):
        for after in (False, True):
            site.kustomer.clear()
            notes.clear()
            site.put(ROWS)
            death.plan(what, at, after)
            try:
                site.run(**given)
            except KilledError:
                death.plan("", 0, False)
                yield f"killed {'after' if after else 'before'} {what} {at}"
            else:
                assert at > 10, "it died nowhere"
                return


@pytest.mark.parametrize("later", [0, 60], ids=["at once", "a minute later"])
@pytest.mark.parametrize("fresh", [False, True], ids=["looking", "fresh"])
@pytest.mark.parametrize("what", ["request", "note"])
def test_a_killed_import_run_again_records_each_message_once(
    site: Site, death: Death, notes: dict[str, bytes], what: str, fresh: bool, later: float
) -> None:
    """Whenever it dies, the next run finds out what was recorded, and records the rest."""
    for when in deaths(site, death, notes, what, fresh=fresh):
        site.kustomer.advance(later)
        result = site.run(fresh=fresh)
        assert result["created"] + result["already"] == len(ROWS), (when, result)
        site.assert_once(ROWS)


@pytest.mark.parametrize("bulk", [Bulk(delay=100, order="given"), Bulk(results=False), Bulk(batch_size=1, per_item=3)])
def test_whatever_kustomers_jobs_are_like(site: Site, death: Death, notes: dict[str, bytes], bulk: Bulk) -> None:
    """Jobs that begin late, tell nothing, or are slow are waited for."""
    site.kustomer.jobs.bulk = bulk
    for when in deaths(site, death, notes, "request", fresh=True):
        result = site.run(fresh=True)
        assert result["created"] + result["already"] == len(ROWS), (when, result)
        site.assert_once(ROWS)

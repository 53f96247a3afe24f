"""An import that is killed at any moment and run again records each message once."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from f.kustomer import client, history_import, history_plan, storage
from f.kustomer.wire import Reply, exchange
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
    death = Death()
    monkeypatch.setattr(storage, "write", death.at_each(storage.write, "note"))
    monkeypatch.setattr(client, "exchange", death.at_each(exchange, "request"))
    monkeypatch.setattr(history_import, "WAVE", 3)
    monkeypatch.setattr(history_plan, "MAX_ITEMS", 4)
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
        site.assert_once(ROWS)

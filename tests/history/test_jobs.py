"""A file is imported: customers, conversations and messages, each once."""

from tests.history.conftest import Site, history


def test_a_history_is_imported_once(site: Site) -> None:
    """Each message is on its thread's timeline, in order, and a second run finds it all there."""
    rows = history(250, threads=40, customers=25)
    site.put(rows)
    first = site.run()
    site.assert_once(rows)
    assert first["created"] == 250
    again = site.run()
    assert again["already"] == 250
    site.assert_once(rows)

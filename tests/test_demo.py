"""The demo shows what it says."""

import pytest

from tests import demo


def test_demo_records_a_message_once_and_shows_it_on_the_timeline(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends well, shows the timeline after each of its two jobs with one new message, and prints no key."""
    status, shown = demo.main(), capsys.readouterr().out
    timelines = shown.split("Timeline of conversation ")[1:]
    assert status == 0
    assert [sum(line.startswith("*") for line in each.splitlines()) for each in timelines] == [1, 1]
    assert shown.endswith("Two jobs, one message.\n")
    assert "eyJ" not in shown

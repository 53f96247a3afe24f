"""The demo shows what it says."""

import pytest

from tests import demo


def test_demo_records_each_message_once_and_shows_it_on_the_timeline(capsys: pytest.CaptureFixture[str]) -> None:
    """It ends well, shows the timeline after each job with what is new, and the file, and prints no key."""
    status, shown = demo.main(), capsys.readouterr().out
    timelines = [each.splitlines() for each in shown.split("Timeline of conversation ")[1:]]
    assert status == 0
    assert [sum(line.startswith("*") for line in each) for each in timelines] == [1, 1, 0]
    assert [sum(" email  acme-inbox " in line for line in each) for each in timelines] == [1, 2, 2]
    assert "dark-lamp.jpg" in shown.partition("Timeline of conversation ")[2]
    assert shown.endswith("Three jobs, two messages.\n")
    assert "eyJ" not in shown

"""What a contributor is told, and what runs for each change, fits what is there."""

import re
from typing import Any

import pytest
import yaml

from tests.lock import ROOT

GITHUB = ROOT / ".github"
PAGE = (GITHUB / "CONTRIBUTING.md").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z]+):.* ## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def read(name: str) -> Any:
    """Return what a file below .github says."""
    return yaml.safe_load((GITHUB / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "command", re.findall(r"\bmake ([a-z ]+)", "\n".join(re.findall(r"^make.*|`make[^`]*`", PAGE, re.M)))
)
def test_every_command_on_the_page_is_a_target(command: str) -> None:
    """A renamed target is renamed there too."""
    assert set(command.split()) <= set(TARGETS)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:f|tests)/[\w./]+)`", PAGE))))
def test_every_place_on_the_page_is_there(path: str) -> None:
    """Whoever looks for the place to change something finds it."""
    assert (ROOT / path).exists()


def test_each_change_is_checked_and_tested() -> None:
    """With each Python that is promised, and with the commands that everybody runs."""
    job = read("workflows/check.yml")["jobs"]["check"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["make PYTHON=python check test"]


def test_issue_form_asks_for_the_errors_extra_and_for_no_key() -> None:
    """What it asks for is what an error holds without saying a secret."""
    form = read("ISSUE_TEMPLATE/bug.yml")["body"]
    asked = {field["id"]: field["attributes"] for field in form if field["type"] != "markdown"}
    assert "extra" in asked
    assert "Never paste a Kustomer key" in form[0]["attributes"]["value"]
    assert not [name for name, field in asked.items() if "auth" in name or re.search(r"(?i)\bkey\b", field["label"])]

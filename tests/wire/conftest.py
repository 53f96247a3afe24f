"""What the tests of the wire share."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

# What a busy machine may take beyond a limit.
SLACK = 1.0


@contextmanager
def ends(least: float, most: float) -> Iterator[None]:
    """Hold that what is done inside takes so many seconds, give or take a busy machine."""
    started = time.monotonic()
    yield
    assert least <= time.monotonic() - started < most + SLACK


@pytest.fixture
def pem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Key and certificate of a server for localhost that the worker trusts."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    return tmp_path / "server.pem"

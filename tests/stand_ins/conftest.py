"""What the tests of the stand-ins share: asking as anybody does, over a connection of one's own, and TLS."""

import pathlib
import ssl
from typing import Any

import pytest
import requests
import trustme

from tests.standin.kustomer import Kustomer


def ask(kustomer: Kustomer, method: str, path: str, key: str = "full", **more: Any) -> requests.Response:
    """Ask with one of the stand-in's keys, or with one that was made."""
    headers = {"Authorization": f"Bearer {kustomer.keys.get(key, key)}"} | more.pop("headers", {})
    return requests.request(method, kustomer.url + path, headers=headers, timeout=5, **more)


@pytest.fixture
def tls(tmp_path: pathlib.Path) -> tuple[ssl.SSLContext, str]:
    """A server's side of TLS for localhost, and the path of the authority to trust."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context, str(tmp_path / "ca.pem")

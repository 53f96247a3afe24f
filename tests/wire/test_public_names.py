"""Libraries are used by their public names, so that nothing that they may change within breaks a promise silently."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.standin.worker import ROOT

FILES = sorted((ROOT / "f").rglob("*.py"))
LIBRARIES = {"httpx", "phonenumbers", "requests", "socket", "ssl", "urllib3", "wmill"}
# The modules of theirs whose names are documented, as far as they are used.
DOCUMENTED = LIBRARIES | {
    "requests.adapters",
    "requests.exceptions",
    "urllib3.exceptions",
    "urllib3.filepost",
    "urllib3.util",
}
# What requests and urllib3 keep for themselves under names that don't show it.
INNER = {"pool", "connection", "poolmanager", "proxy_manager", "original_response", "ConnectionCls", "sock", "fp"}


def parsed(path: Path) -> list[ast.AST]:
    """Everything that a module says."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def own_names() -> set[str]:
    """What this house gives a name, and what every NamedTuple has by its documentation."""
    nodes = [node for path in FILES for node in parsed(path)]
    defined = {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    stored = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    return defined | stored | {"_asdict", "_fields", "_replace"}


def inner_names(nodes: list[ast.AST], own: set[str]) -> Iterator[str]:
    """The inner names of libraries among these, and the classes of theirs that are built on."""
    foreign = {each.name: each.name for node in nodes if isinstance(node, ast.Import) for each in node.names}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            foreign |= {each.name: str(node.module) for each in node.names}
    foreign = {name: module for name, module in foreign.items() if module.partition(".")[0] in LIBRARIES}
    yield from (name for name, module in foreign.items() if module not in DOCUMENTED or name.startswith("_"))
    for node in nodes:
        if isinstance(node, ast.Attribute) and not node.attr.endswith("__"):
            inner = node.attr in INNER or (node.attr.startswith("_") and node.attr not in own)
            yield from [node.attr] if inner else []
        if isinstance(node, ast.ClassDef):
            bases = [ast.unparse(base) for base in node.bases]
            yield from (base for base in bases if base.partition(".")[0] in foreign)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_inner_name_of_a_library_is_used(path: Path) -> None:
    """Nor is a class of a library's built on."""
    assert list(inner_names(parsed(path), own_names())) == []


@pytest.mark.parametrize(
    ("source", "inner"),
    [
        ("from urllib3.connection import HTTPSConnection", ["HTTPSConnection"]),
        ("import requests.models", ["requests.models"]),
        ("from requests.adapters import _is_prepared", ["_is_prepared"]),
        ("response._pool._put_conn(None)", ["_put_conn", "_pool"]),
        ("response.raw.connection.close()", ["connection"]),
        ("from requests.adapters import HTTPAdapter\nclass Ours(HTTPAdapter): pass", ["HTTPAdapter"]),
        ("import ssl\nclass Ours(ssl.SSLSocket): pass", ["ssl.SSLSocket"]),
        ("from urllib3.exceptions import NewConnectionError\nresponse.raw.shutdown()\nself._idle.pop()", []),
    ],
)
def test_an_inner_name_would_be_seen(source: str, inner: list[str]) -> None:
    """In each of its guises."""
    assert list(inner_names(list(ast.walk(ast.parse(source))), {"_idle"})) == inner

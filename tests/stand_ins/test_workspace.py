"""The stand-in for a Windmill workspace keeps to what Windmill, its CLI and its Python client do."""

import copy
import hashlib
import pathlib
import shutil
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import wmill
import yaml

from tests import windmill_cli
from tests.standin import windmill_locks
from tests.standin.windmill import Item, Workspace
from tests.standin.windmill_flows import RESOLVED_LOCK, deployed
from tests.standin.windmill_storage import StorageFault, sha256_of

PUSH = "wmill sync push --yes"
FLOW_FOLDER = pathlib.PurePath("f", "kustomer", "record__flow")
FAILURE = "def main(error: dict) -> str:\n    return error['name']\n"
LOCK = "# py: 3.12\n"

# A flow in the very form in which the server writes it anew, and as its files say it.
FLOW: Item = {
    "summary": "Record an e-mail with its files",
    "description": "",
    "value": {
        "modules": [
            {
                "id": "upload",
                "value": {
                    "type": "forloopflow",
                    "iterator": {"type": "javascript", "expr": "flow_input.files"},
                    "parallel": True,
                    "parallelism": {"type": "static", "value": 4},
                    "skip_failures": False,
                    "modules": [
                        {
                            "id": "upload_one",
                            "value": {
                                "type": "script",
                                "path": "f/kustomer/upload",
                                "input_transforms": {"auth": {"type": "static", "value": "$res:f/kustomer/api"}},
                            },
                            "retry": {
                                "constant": {"attempts": 0, "seconds": 0},
                                "exponential": {"attempts": 3, "multiplier": 1, "seconds": 2, "random_factor": 20},
                                "retry_if": {"expr": "error?.extra?.retryable === true"},
                            },
                        }
                    ],
                },
            },
            {
                "id": "record",
                "timeout": {"type": "static", "value": 120},
                "value": {
                    "type": "script",
                    "path": "f/kustomer/record",
                    "input_transforms": {"body": {"type": "javascript", "expr": "results.upload"}},
                },
                "stop_after_if": {"expr": "!result", "skip_if_stopped": False, "error_message": None},
            },
        ],
        "failure_module": {
            "id": "failure",
            "value": {
                "type": "rawscript",
                "language": "python3",
                "content": "!inline failure.py",
                "lock": "!inline failure.lock",
                "input_transforms": {"error": {"type": "javascript", "expr": "error"}},
            },
        },
    },
    "schema": {"type": "object", "properties": {}, "required": []},
}


@pytest.fixture
def workspace() -> Iterator[Workspace]:
    """A workspace of the test's own."""
    with Workspace() as workspace:
        yield workspace


@pytest.fixture
def client(workspace: Workspace) -> Iterator[wmill.Windmill]:
    """Windmill's own Python client, in that workspace."""
    client = _client(workspace)
    yield client
    client.client.close()


def _client(workspace: Workspace, **other: str) -> wmill.Windmill:
    options = {"base_url": workspace.url.rstrip("/"), "token": workspace.token, "workspace": workspace.id}
    return wmill.Windmill(**options | other)  # type: ignore[no-untyped-call]


def _load(client: wmill.Windmill, key: str, storage: str | None = None) -> bytes:
    content: bytes = client.load_s3_file(wmill.S3Object(s3=key, storage=storage), None)
    return content


# Object storage


@pytest.mark.parametrize("storage", [None, "archive"])
@pytest.mark.parametrize("content", [b"", b"%PDF-1.7", b"\0\xff" * 100_000, 0, 1, 200_001])
def test_client_loads_what_is_stored(
    workspace: Workspace, client: wmill.Windmill, content: bytes | int, storage: str | None
) -> None:
    """Bytes come back as they are, and made ones with the digest that is told of them."""
    workspace.store("in/a file & more.pdf", content, storage=storage)
    loaded = _load(client, "in/a file & more.pdf", storage)
    assert len(loaded) == (content if isinstance(content, int) else len(content))
    assert hashlib.sha256(loaded).hexdigest() == sha256_of(content)


def test_a_made_file_is_never_held_whole(workspace: Workspace, client: wmill.Windmill) -> None:
    """Neither the stand-in nor whoever reads it in pieces needs the file's size in memory."""
    workspace.store("big", 64 * 2**20)
    digest = hashlib.sha256()
    tracemalloc.start()
    with client.load_s3_file_reader(wmill.S3Object(s3="big"), None) as reader:
        while piece := reader.read(2**16):
            digest.update(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20
    assert digest.hexdigest() == sha256_of(64 * 2**20)


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("cut", httpx.RemoteProtocolError, r"without sending complete message body \(received 4 bytes, expected 8\)"),
        ("error", httpx.HTTPStatusError, "Failed to load S3 file: 500 Internal Server Error - Internal: Error retr"),
        ("denied", httpx.HTTPStatusError, "Failed to load S3 file: 403 Forbidden - Permission denied: "),
    ],
)
def test_a_fault_meets_one_request(
    workspace: Workspace, client: wmill.Windmill, kind: StorageFault, error: type[Exception], text: str
) -> None:
    """The client raises what it raises of a real server's failure, and the next request is served."""
    workspace.store("file", b"12345678")
    workspace.storage_fault(kind)
    with pytest.raises(error, match=text):
        _load(client, "file")
    assert _load(client, "file") == b"12345678"


def test_faults_are_met_in_order(workspace: Workspace, client: wmill.Windmill) -> None:
    """Each request takes the earliest fault that is left."""
    workspace.storage_fault("error")
    workspace.storage_fault("denied")
    for status in ("500", "403", "404"):
        with pytest.raises(httpx.HTTPStatusError, match=status):
            _load(client, "absent")


def test_a_hanging_request_ends_when_released(workspace: Workspace, client: wmill.Windmill) -> None:
    """Until then it alone hangs; after it, the file comes."""
    workspace.store("file", b"12345678")
    workspace.storage_fault("hang")
    other = _client(workspace)
    with ThreadPoolExecutor() as pool:
        hanging = pool.submit(_load, other, "file")
        while not workspace.requests:
            pass
        assert _load(client, "file") == b"12345678"
        assert not hanging.done()
        workspace.release()
        assert hanging.result() == b"12345678"
    other.client.close()


def test_leaving_the_block_releases_what_hangs() -> None:
    """A test that forgets to release doesn't wait for ever."""
    with ThreadPoolExecutor() as pool:
        with Workspace() as workspace:
            workspace.store("file", b"12345678")
            workspace.storage_fault("hang")
            client = _client(workspace)
            hanging = pool.submit(_load, client, "file")
            while not workspace.requests:
                pass
        assert hanging.result() == b"12345678"
    client.client.close()


@pytest.mark.parametrize(
    ("key", "storage", "text"),
    [
        ("absent", None, "404 Not Found - Not found: absent: Object at location absent not found"),
        ("file", "archive", "404 Not Found - Not found: file: "),
        ("file", "nowhere", "500 Internal Server Error - Internal: No files storage resource defined"),
    ],
)
def test_what_is_not_stored_is_not_found(
    workspace: Workspace, client: wmill.Windmill, key: str, storage: str | None, text: str
) -> None:
    """A file is found under its key in its storage, and nowhere else."""
    workspace.store("file", b"12345678")
    workspace.store("other", b"12345678", storage="archive")
    with pytest.raises(httpx.HTTPStatusError, match=f"Failed to load S3 file: {text}"):
        _load(client, key, storage)


def test_a_storage_outside_the_workspace_is_not_found(workspace: Workspace, client: wmill.Windmill) -> None:
    """No resource of this workspace leads to a storage of its own."""
    workspace.store("file", b"12345678")
    with pytest.raises(httpx.HTTPStatusError, match="404 Not Found - Not found: Resource f/kustomer/bucket"):
        client.load_s3_file(wmill.S3Object(s3="file"), "f/kustomer/bucket")


def test_a_file_needs_the_token(workspace: Workspace) -> None:
    """Whoever has another token gets nothing, and uses up no fault."""
    workspace.store("file", b"12345678")
    workspace.storage_fault("error")
    client = _client(workspace, token="another")  # noqa: S106 - opens nothing
    with pytest.raises(httpx.HTTPStatusError, match="Failed to load S3 file: 401 Unauthorized - Unauthorized"):
        _load(client, "file")
    client.client.close()


# Flows


@pytest.fixture
def checkout(tmp_path: pathlib.Path) -> pathlib.Path:
    """A checkout with this repository's settings and one flow, in a form that stays."""
    windmill_cli.need_node()
    return _checkout(tmp_path / "checkout", FLOW)


def _checkout(target: pathlib.Path, flow: Item | None = None) -> pathlib.Path:
    target.mkdir()
    shutil.copy(windmill_cli.ROOT / "wmill.yaml", target)
    if flow:
        folder = target / FLOW_FOLDER
        folder.mkdir(parents=True)
        shutil.copy(windmill_cli.ROOT / "f" / "kustomer" / "folder.meta.yaml", folder.parent)
        (folder / "flow.yaml").write_text(yaml.safe_dump(flow), encoding="utf-8")
        (folder / "failure.py").write_text(FAILURE, encoding="utf-8")
        (folder / "failure.lock").write_text(LOCK, encoding="utf-8")
    return target


def _pushes(workspace: Workspace, checkout: pathlib.Path, home: pathlib.Path) -> list[str]:
    """Push twice, and return the paths of the writes that each push asked for, without the workspace's."""
    for _ in range(2):
        windmill_cli.run(f"{PUSH} {windmill_cli.at(workspace)}", checkout, home)
    return [write.path.removeprefix(f"/api/w/{workspace.id}/") for write in workspace.writes]


def test_cli_pushes_a_flow_once(workspace: Workspace, checkout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The workspace holds what the files say, inline script and lock in place; pushed again, nothing changes."""
    assert _pushes(workspace, checkout, tmp_path) == ["flows/create"]
    expected = copy.deepcopy(FLOW)
    expected["value"]["failure_module"]["value"] |= {"content": FAILURE, "lock": LOCK}
    held = workspace.holdings()["flows"]["f/kustomer/record"]
    assert held == expected | {"path": "f/kustomer/record", "extra_perms": {}}


def test_cli_updates_a_flow_that_changed(workspace: Workspace, checkout: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Another text in the inline script reaches the workspace, and nothing else does."""
    _pushes(workspace, checkout, tmp_path)
    (checkout / FLOW_FOLDER / "failure.py").write_text("def main():\n    return 2\n", encoding="utf-8")
    assert _pushes(workspace, checkout, tmp_path) == ["flows/create", "flows/update/f/kustomer/record"]
    failure = workspace.holdings()["flows"]["f/kustomer/record"]["value"]["failure_module"]
    assert failure["value"]["content"] == "def main():\n    return 2\n"


def test_cli_pulls_a_flow_under_the_same_names(
    workspace: Workspace, checkout: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """A checkout that never had the flow gets the same files with the same contents."""
    _pushes(workspace, checkout, tmp_path)
    other = _checkout(tmp_path / "other")
    windmill_cli.run(f"wmill sync pull --yes {windmill_cli.at(workspace)}", other, tmp_path)
    files = {file.name: file.read_text(encoding="utf-8") for file in (other / FLOW_FOLDER).iterdir()}
    assert yaml.safe_load(files.pop("flow.yaml")) == FLOW
    assert files == {"failure.py": FAILURE, "failure.lock": LOCK}


def test_a_flow_in_another_form_is_pushed_each_time(workspace: Workspace, tmp_path: pathlib.Path) -> None:
    """What the server writes anew differs from the files, though it means the same."""
    windmill_cli.need_node()
    flow = copy.deepcopy(FLOW)
    flow["value"]["modules"][0]["value"]["parallelism"] = 4
    pushes = _pushes(workspace, _checkout(tmp_path / "checkout", flow), tmp_path)
    assert pushes == ["flows/create", "flows/update/f/kustomer/record"]


@pytest.mark.parametrize(
    ("told", "held"),
    [
        (
            {"retry": {"constant": {"attempts": 2}, "retry_if": {"expr": "x"}}},
            {
                "retry": {
                    "constant": {"attempts": 2, "seconds": 0},
                    "exponential": {"attempts": 0, "multiplier": 1, "seconds": 0, "random_factor": None},
                    "retry_if": {"expr": "x"},
                }
            },
        ),
        (
            {"retry": {"exponential": {"attempts": 2, "seconds": 3}}},
            {
                "retry": {
                    "constant": {"attempts": 0, "seconds": 0},
                    "exponential": {"attempts": 2, "multiplier": 1, "seconds": 3, "random_factor": None},
                }
            },
        ),
        (
            {"stop_after_if": {"expr": "x", "skip_if_stopped": True}},
            {"stop_after_if": {"expr": "x", "skip_if_stopped": True, "error_message": None}},
        ),
        ({"timeout": 60}, {"timeout": {"type": "static", "value": 60}}),
        ({"summary": "Upload", "retries": 3}, {"summary": "Upload"}),
    ],
)
def test_a_step_is_held_as_the_server_writes_it(told: Item, held: Item) -> None:
    """At every place where a step can stand: defaults are there, and what isn't known is gone."""
    script = {"type": "script", "path": "f/kustomer/upload"}
    loop = {"type": "forloopflow", "iterator": {"type": "javascript", "expr": "[]"}}
    rounds = {"type": "whileloopflow", "skip_failures": False}

    def flow(step: Item, **defaults: bool) -> Item:
        modules = [{"id": "b", "value": each | {"modules": [step]}} for each in (loop | defaults, rounds)]
        return {"modules": [step, *modules], "failure_module": step}

    before, after = ({"id": "a", "value": script} | more for more in (told, held))
    completed = flow(after, skip_failures=True, parallel=False)
    assert deployed({"path": "f/kustomer/record", "value": flow(before)})["value"] == completed


@pytest.mark.parametrize("lock", [{}, {"lock": ""}, {"lock": None}])
def test_an_inline_script_without_a_lock_gets_one(lock: Item) -> None:
    """The server resolves what the files leave open."""
    step = {"type": "rawscript", "language": "python3", "content": FAILURE} | lock
    held = deployed({"value": {"modules": [{"id": "a", "value": step}]}})
    assert held["value"]["modules"][0]["value"] == step | {"lock": RESOLVED_LOCK}


@pytest.mark.parametrize(
    ("path", "flow", "status"),
    [
        ("flows/create", "f/nowhere/record", 400),
        ("flows/create", "f/kustomer/escalation", 400),
        ("flows/update/f/kustomer/record", "f/kustomer/record", 404),
    ],
)
def test_a_flow_is_refused_where_it_cannot_be(workspace: Workspace, path: str, flow: str, status: int) -> None:
    """In a folder that isn't there, over one that is there, and changed before it is made."""
    before = workspace.holdings()
    url, headers = f"{workspace.url}api/w/{workspace.id}/{path}", {"Authorization": f"Bearer {workspace.token}"}
    response = httpx.post(url, json=FLOW | {"path": flow}, headers=headers)
    assert (response.status_code, workspace.holdings()) == (status, before)


# Locks


@pytest.mark.parametrize(
    ("source", "locked"),
    [
        ("import json\nimport requests.adapters\n", ["requests==9999"]),
        ("from f.kustomer.low import call\n", ["idna==3.20"]),
        ("import idna\n\nfrom f.kustomer.low import call\n", ["idna==3.20"]),
        ("# requirements:\n# anyio==4.16.0\nfrom f.kustomer.low import call\n", ["anyio==4.16.0"]),
        ("# extra_requirements:\n# anyio==4.16.0\nfrom f.kustomer.low import call\n", ["anyio==4.16.0", "idna==3.20"]),
        ("def call():\n    import requests\n", []),
        ("def main():\n    return 1\n\n\nimport requests\n", []),
    ],
)
def test_a_lock_is_made_of_what_the_server_sees(source: str, locked: list[str]) -> None:
    """Imports at the top; a list of requirements takes the place of all that is found, or adds to it."""
    sources = {"f/kustomer/low": "# py: ==3.12.*\n# requirements:\n# idna==3.20\n", "f/kustomer/high": source}
    assert windmill_locks.lock("f/kustomer/high", sources) == "# py: 3.12\n" + "\n".join(locked)


def test_a_script_is_locked_once_for_each_way_up() -> None:
    """A job knows its own chain only; a script that nobody imports sets off nothing."""
    importing = {"f/low": [], "f/left": ["low"], "f/right": ["low"], "f/top": ["left", "right"]}
    sources = {path: "".join(f"import f.{name}\n" for name in names) for path, names in importing.items()}
    up = {("f/low", side, *rest) for side in ("f/left", "f/right") for rest in ((), ("f/top",))}
    assert sorted(windmill_locks.jobs(["f/low", "f/top"], sources)) == sorted(up)


PINNED = "# py: ==3.12.*\n# requirements:\n# requests==2.34.2\n"


@pytest.mark.parametrize(("pins", "again"), [(PINNED, []), ("", ["f/kustomer/high"])], ids=["pinned", "open"])
def test_cli_pushes_scripts_once_where_their_packages_are_pinned(
    workspace: Workspace, tmp_path: pathlib.Path, pins: str, again: list[str]
) -> None:
    """Where they aren't, the server takes newer ones, and the lock differs from the files ever after."""
    windmill_cli.need_node()
    folder = _checkout(tmp_path / "checkout") / "f" / "kustomer"
    folder.mkdir(parents=True)
    shutil.copy(windmill_cli.ROOT / "f" / "kustomer" / "folder.meta.yaml", folder)
    low, high = f"{pins}import requests\n", "from f.kustomer.low import requests\n\n\ndef main():\n    return 1\n"
    for name, source in (("low", low), ("high", high)):
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
        (folder / f"{name}.script.lock").write_text("# py: 3.12\nrequests==2.34.2", encoding="utf-8")
        metadata = {"summary": "", "description": "", "kind": "script", "schema": None}
        told = metadata | {"lock": f"!inline f/kustomer/{name}.script.lock"}
        (folder / f"{name}.script.yaml").write_text(yaml.safe_dump(told), encoding="utf-8")
    for paths in (["f/kustomer/high", "f/kustomer/low"], again):
        seen = len(workspace.writes)
        windmill_cli.run(f"{PUSH} {windmill_cli.at(workspace)}", tmp_path / "checkout", tmp_path)
        assert sorted(write.body["path"] for write in workspace.writes[seen:]) == paths
        workspace.relock()


# References


def test_references_are_replaced_at_any_depth(workspace: Workspace) -> None:
    """A resource may refer to a variable in its turn; a string that only contains a reference is text."""
    workspace.hold("resources", "f/kustomer/api", {"value": {"apiKey": "$var:f/kustomer/api_key", "orgName": "acme"}})
    workspace.hold("variables", "f/kustomer/api_key", {"value": "the key"})
    given = {
        "auth": "$res:f/kustomer/api",
        "list": [{"region": "$var:f/kustomer/region"}, ["$res:f/kustomer/api"]],
        "text": "see $res:f/kustomer/api",
    }
    api = {"apiKey": "the key", "orgName": "acme"}
    expected = {"auth": api, "list": [{"region": "us"}, [api]], "text": "see $res:f/kustomer/api"}
    assert workspace.resolve(given) == expected
    assert given["auth"] == "$res:f/kustomer/api"


def test_an_item_can_be_held_that_was_not_there(workspace: Workspace) -> None:
    """Other items and other fields of an item stay."""
    before = workspace.holdings()
    workspace.hold("resources", "u/test/api", {"resource_type": "kustomer", "value": {"apiKey": "k"}})
    workspace.hold("variables", "f/kustomer/region", {"value": "eu"})
    before["resources"]["u/test/api"] = {"path": "u/test/api", "resource_type": "kustomer", "value": {"apiKey": "k"}}
    before["variables"]["f/kustomer/region"]["value"] = "eu"
    assert workspace.holdings() == before


@pytest.mark.parametrize("reference", ["$res:f/kustomer/absent", "$var:f/kustomer/absent", "$var:f/kustomer/api"])
def test_an_unknown_reference_is_no_argument(workspace: Workspace, reference: str) -> None:
    """A job with one doesn't start; a resource is no variable."""
    with pytest.raises(LookupError, match=reference.split(":")[1]):
        workspace.resolve({"body": [reference]})


def test_a_reserved_variable_is_replaced(workspace: Workspace) -> None:
    """Text that is exactly `$` and such a name becomes its value: a token, or nothing where a job has none."""
    given = ["$WM_TOKEN", "$WM_WORKSPACE", "$WM_BASE_URL", "$WM_SCHEDULE_PATH"]
    assert workspace.resolve(given) == [workspace.token, workspace.id, workspace.url.rstrip("/"), ""]


@pytest.mark.parametrize("text", ["$5.00", "$", "$WM_TOKEN ", "$wm_token", "a $WM_TOKEN", "$TOKEN", "$$WM_TOKEN", ""])
def test_other_text_stays(workspace: Workspace, text: str) -> None:
    """A dollar in front doesn't make a reference."""
    assert workspace.resolve({"preview": text}) == {"preview": text}

"""Deploying with Windmill's own CLI changes nothing but our steps, and the CLI leaves our files alone."""

import ast
import dataclasses
import os
import pathlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import pytest
import yaml

from tests import lock, windmill_cli
from tests.standin import windmill_locks
from tests.standin.windmill import HUB_RESOURCE_TYPE, Item, Request, Workspace

PUSH_TYPE = "wmill resource-type push resource_types/kustomer.resource-type.yaml kustomer"
PUSH = "wmill sync push --yes"
# The README's commands, in order. Each may be given again at any time.
DEPLOY = ("wmill folder push kustomer", f"wmill resource-type get kustomer || {PUSH_TYPE}", PUSH)
API = f"/api/w/{Workspace.id}"

# What a checkout could come to hold, by accident or by `wmill sync pull`, of other people's work: all of it
# differs from what Workspace holds. None of it may reach the workspace.
STRAYS = {
    "f/billing/invoice.py": "def main():\n    return 'changed'\n",
    "f/billing/invoice.script.yaml": "{summary: changed, description: '', kind: script, lock: '# py: 3.11'}",
    "f/billing/folder.meta.yaml": "name: billing\n",
    "f/kustomer/folder.meta.yaml": "{summary: changed, owners: [], extra_perms: {}}\n",
    "f/kustomer/api.resource.yaml": "{resource_type: kustomer, description: '', value: {apiKey: changed}}\n",
    "f/kustomer/region.variable.yaml": "{description: '', is_secret: false, value: changed}\n",
    "erp.resource-type.yaml": "{description: changed, schema: {type: object, properties: {}}}\n",
    "dependencies/requirements.in": "changed\n",
}

# The settings of wmill.yaml that keep other people's work safe, each with what would be lost without it.
GUARDS = {
    "keepDeleted": ("scripts", "f/kustomer/nightly_report"),
    "includes": ("scripts", "f/billing/invoice"),
    "skipFolders": ("folders", "kustomer"),
    "skipResources": ("resources", "f/kustomer/api"),
    "skipVariables": ("variables", "f/kustomer/region"),
    "skipResourceTypes": ("resource_types", "erp"),
    "skipWorkspaceDependencies": ("dependencies", "default"),
}

Holdings = dict[str, dict[str, Item]]


@dataclasses.dataclass(frozen=True)
class Deployment:
    """What one deployment did: the writes it asked for, the jobs that it set off, and what the workspace held."""

    writes: list[Request]
    jobs: list[windmill_locks.Job]
    before: Holdings
    after: Holdings


class Deployments(NamedTuple):
    """The same commands given twice."""

    first: Deployment
    second: Deployment


@pytest.fixture(scope="module")
def node() -> None:
    """Node.js, without which Windmill's tools do not run."""
    windmill_cli.need_node()


@pytest.fixture(scope="module")
def repository(node: None, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A checkout with a picture and a text beside the steps; tests that change it take their own."""
    repository = windmill_cli.copy_repository(tmp_path_factory.mktemp("deploy") / "repository")
    (repository / "f" / "kustomer" / "form.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (repository / "f" / "kustomer" / "README.md").write_text("# Steps\n", encoding="utf-8")
    return repository


@pytest.fixture
def own_repository(node: None, tmp_path: pathlib.Path) -> pathlib.Path:
    """A checkout that this test alone may change."""
    return windmill_cli.copy_repository(tmp_path / "repository")


@pytest.fixture(scope="module")
def new_workspace(repository: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployments]:
    """The first and the second deployment into a workspace that has never heard of Kustomer."""
    with Workspace(folder=False) as workspace:
        yield _deploy_twice(workspace, repository, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def busy_workspace(repository: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployments]:
    """The first and the second deployment into a workspace where others use f/kustomer and the Hub's type."""
    with Workspace(hub_type=True) as workspace:
        yield _deploy_twice(workspace, repository, tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def unguarded(node: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Deployment]]]:
    """What a push does when wmill.yaml lacks a setting: setting -> deployment; they run side by side."""

    def push_without(setting: str) -> Deployment:
        home = tmp_path_factory.mktemp(setting)
        repository = windmill_cli.copy_repository(home / "repository")
        settings: dict[str, Any] = windmill_cli.read_yaml(repository / "wmill.yaml")
        del settings[setting]
        (repository / "wmill.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        return _push_with_strays(repository, home)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield {setting: pool.submit(push_without, setting) for setting in GUARDS}


def test_lint_finds_nothing_and_every_lock_in_place(repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What a push checks first holds without a server."""
    windmill_cli.run("wmill lint --locks-required --fail-on-warn", repository, tmp_path)


def test_readme_gives_the_commands_that_are_proven_here() -> None:
    """Whoever follows the README does what these tests do."""
    readme = (windmill_cli.ROOT / "README.md").read_text(encoding="utf-8")
    assert [command for command in DEPLOY if command not in readme] == []


def test_first_deployment_makes_folder_type_and_scripts_and_nothing_else(
    new_workspace: Deployments, repository: pathlib.Path
) -> None:
    """Every write is one of ours and says what the files say; pictures and texts are left out."""
    resource_type = windmill_cli.read_yaml(repository / "resource_types" / "kustomer.resource-type.yaml")
    writes = new_workspace.first.writes
    assert writes[:2] == [
        Request("POST", f"{API}/folders/create", {}, {"name": "kustomer"}),
        Request("POST", f"{API}/resources/type/create", {}, {"name": "kustomer"} | resource_type),
    ]
    assert _by_path(writes[2:]) == _creations(repository)


def test_whoever_makes_the_folder_owns_it(new_workspace: Deployments) -> None:
    """The folder says nothing of owners, so the server gives it to whoever deploys first."""
    assert new_workspace.first.after["folders"]["kustomer"]["owners"] == ["u/deployer"]


def test_deployment_into_a_busy_workspace_adds_the_scripts_and_nothing_else(
    busy_workspace: Deployments, repository: pathlib.Path
) -> None:
    """A folder and a resource type that are there stay as they are."""
    assert _by_path(busy_workspace.first.writes) == _creations(repository)
    assert busy_workspace.first.after["resource_types"]["kustomer"] == HUB_RESOURCE_TYPE


@pytest.mark.parametrize("workspace", ["new_workspace", "busy_workspace"])
def test_nothing_of_other_people_is_changed_or_deleted(workspace: str, request: pytest.FixtureRequest) -> None:
    """All that was there before the deployment is there after it, word for word."""
    deployments: Deployments = request.getfixturevalue(workspace)
    assert _changed(deployments.first.before, deployments.second.after) == []


@pytest.mark.parametrize("workspace", ["new_workspace", "busy_workspace"])
def test_deploying_again_writes_nothing(workspace: str, request: pytest.FixtureRequest) -> None:
    """What the server gives back, locked anew, is what the files say, so nothing differs the second time."""
    deployments: Deployments = request.getfixturevalue(workspace)
    assert (deployments.second.writes, deployments.second.jobs) == ([], [])


@pytest.mark.parametrize("workspace", ["new_workspace", "busy_workspace"])
def test_deployment_sets_off_the_jobs_that_are_counted(workspace: str, request: pytest.FixtureRequest) -> None:
    """As many as there are ways up through the imports; what the count is held to holds for the deployment."""
    deployments: Deployments = request.getfixturevalue(workspace)
    assert sorted(deployments.first.jobs) == sorted(windmill_locks.jobs(lock.SOURCES, lock.SOURCES))


def test_resource_type_is_asked_for_first_because_a_push_overwrites_it(
    repository: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Without the question before it, the push would replace the Hub's type."""
    with Workspace(hub_type=True) as workspace:
        windmill_cli.run(f"{PUSH_TYPE} {windmill_cli.at(workspace)}", repository, tmp_path)
        assert workspace.holdings()["resource_types"]["kustomer"] != HUB_RESOURCE_TYPE


def test_a_script_without_its_lock_is_not_deployed(own_repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What was tested is what runs, from the first minute on."""
    next((own_repository / "f").rglob("*.script.lock")).write_text("", encoding="utf-8")
    with Workspace() as workspace:
        windmill_cli.run(f"{PUSH} {windmill_cli.at(workspace)}", own_repository, tmp_path, fails=True)
        assert workspace.writes == []


def test_other_peoples_work_in_a_checkout_is_not_deployed(own_repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Keys, variables, permissions and foreign scripts that came into a checkout stay there."""
    expected = _creations(own_repository)
    assert _by_path(_push_with_strays(own_repository, tmp_path).writes) == expected


@pytest.mark.parametrize("setting", GUARDS)
def test_every_guard_in_wmill_yaml_is_needed(setting: str, unguarded: dict[str, Future[Deployment]]) -> None:
    """Without any one of them other people's work is changed or deleted, and the stand-in notices."""
    deployment = unguarded[setting].result()
    assert GUARDS[setting] in _changed(deployment.before, deployment.after)


def test_schema_inference_leaves_every_file_as_it_is(own_repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Somebody who runs `wmill generate-metadata` gets the same forms, hashes and text, byte for byte."""
    committed = _texts(own_repository)
    windmill_cli.make_stale(own_repository)
    with Workspace() as workspace:
        windmill_cli.run(f"{windmill_cli.INFER} {windmill_cli.at(workspace)}", own_repository, tmp_path)
    windmill_cli.run(windmill_cli.REHASH, own_repository, tmp_path)  # a flow has no schema to infer: hashes only
    assert _texts(own_repository) == committed


def test_rehashing_gives_the_hashes_that_are_committed(own_repository: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """wmill-lock.yaml fits the files, so a push does not call any of them stale."""
    committed = _texts(own_repository)
    windmill_cli.make_stale(own_repository)
    windmill_cli.run(windmill_cli.REHASH, own_repository, tmp_path)
    assert _texts(own_repository) == committed


@pytest.mark.usefixtures("node")
def test_windmill_reads_a_kustomer_key_and_leaves_the_body_to_us() -> None:
    """Every step that asks Kustomer takes `auth` from a resource, and most a `body` whose form nobody infers."""
    steps = {str(file): source for file, source in _sources(windmill_cli.ROOT).items() if _has_main(source)}
    assert steps
    for step, parsed in windmill_cli.parse(steps).items():
        arguments = [(read["name"], read["typ"], read["has_default"]) for read in parsed["args"]]
        auth, body = ("auth", {"resource": "kustomer"}, False), ("body", "unknown", False)
        assert arguments in ([auth], [auth, body], [body]), step
        assert ("auth" in steps[step].partition("def main(")[2].partition(")")[0]) == (auth in arguments)


def _deploy_twice(workspace: Workspace, repository: pathlib.Path, home: pathlib.Path) -> Deployments:
    windmill_cli.log_in(workspace, repository, home)
    return Deployments(*(_deploy(DEPLOY, workspace, repository, home) for _ in range(2)))


def _deploy(
    commands: tuple[str, ...], workspace: Workspace, repository: pathlib.Path, home: pathlib.Path
) -> Deployment:
    before, seen = workspace.holdings(), len(workspace.writes)
    for command in commands:
        windmill_cli.run(command, repository, home)
    return Deployment(workspace.writes[seen:], workspace.relock(), before, workspace.holdings())


def _push_with_strays(repository: pathlib.Path, home: pathlib.Path) -> Deployment:
    for name, text in STRAYS.items():
        file = repository / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    with Workspace() as workspace:
        return _deploy((f"{PUSH} {windmill_cli.at(workspace)}",), workspace, repository, home)


def _by_path(writes: list[Request]) -> list[Request]:
    return sorted(writes, key=lambda write: str((write.body or {}).get("path")))


def _sources(repository: pathlib.Path) -> dict[pathlib.Path, str]:
    """Every .py under f/, each of which Windmill takes for a script: file -> text."""
    return {file: file.read_text(encoding="utf-8") for file in sorted((repository / "f").rglob("*.py"))}


def _has_main(source: str) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(source).body)


def _creations(repository: pathlib.Path) -> list[Request]:
    """The requests that deploy what lies under f/, said by the files alone, by path."""
    creations = []
    for file, source in _sources(repository).items():
        path = file.relative_to(repository).with_suffix("").as_posix()
        metadata: Item = windmill_cli.read_yaml(file.with_suffix(".script.yaml"))
        lock = file.with_suffix(".script.lock").read_text(encoding="utf-8")
        told = {"path": path, "language": "python3", "content": source, "lock": lock}
        body = metadata | told | {"skip_draft_deletion": True}
        creations.append(Request("POST", f"{API}/scripts/create", {"skip_if_noop": "true"}, body))
    for file in (repository / "f").rglob("flow.yaml"):
        flow: Item = windmill_cli.read_yaml(file)
        path = file.parent.relative_to(repository).as_posix().removesuffix("__flow")
        creations.append(Request("POST", f"{API}/flows/create", {}, flow | {"path": path, "skip_draft_deletion": True}))
    return _by_path(creations)


def _changed(before: Holdings, after: Holdings) -> list[tuple[str, str]]:
    """What was there before and is not there in the same words after: (kind, path or name) of each."""
    held = [(kind, key, item) for kind, items in before.items() for key, item in items.items()]
    return [(kind, key) for kind, key, item in held if after[kind].get(key) != item]


def _texts(repository: pathlib.Path) -> dict[str, bytes]:
    """Every file of a checkout: name -> bytes."""
    files = (file for file in repository.rglob("*") if file.is_file())
    return {file.relative_to(repository).as_posix(): file.read_bytes() for file in files}

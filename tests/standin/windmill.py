"""A stand-in for a Windmill workspace, for the real CLI and the real Python client to talk to.

It already holds other people's work, remembers every request, applies every write to what it holds, and
exports its contents as the server does, so a test can say what a deployment changed and what it left alone.
It also gives a job its files and its arguments.

API: https://app.windmill.dev/openapi.html. Export layout: https://www.windmill.dev/docs/advanced/cli/sync
"""

import asyncio
import copy
import dataclasses
import hashlib
import io
import json
import pathlib
import threading
import types
import zipfile
from collections.abc import Awaitable, Callable
from typing import Any, Self

from aiohttp import web

from tests.standin import windmill_locks
from tests.standin.windmill_flows import deployed
from tests.standin.windmill_holdings import DEPLOYER, HUB_RESOURCE_TYPE, Holdings, Item, other_peoples_work, resolved
from tests.standin.windmill_storage import Storage, StorageFault

__all__ = ["HUB_RESOURCE_TYPE", "Item", "Request", "Workspace"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

EXISTS = "/api/workspaces/exists"
VERSION = "/api/version"

# Where the export puts an item of each kind; a script's code lies beside its metadata.
EXPORT_NAMES = {
    "folders": "f/{}/folder.meta.json",
    "scripts": "{}.script.json",
    "flows": "{}.flow.json",
    "resources": "{}.resource.json",
    "variables": "{}.variable.json",
    "resource_types": "{}.resource-type.json",
    "schedules": "{}.schedule.json",
}

# The query parameters by which the CLI asks for a kind to be left out of the export, or put into it.
LEFT_OUT_BY = {
    "resources": "skip_resources",
    "variables": "skip_variables",
    "resource_types": "skip_resource_types",
}
PUT_IN_BY = {"schedules": "include_schedules"}

# How each kind is changed in place. A script never is: its next version is created.
UPDATES = (
    ("folders/update/{key}", "folders"),
    ("resources/type/update/{key}", "resource_types"),
    ("resources/update/{key:.+}", "resources"),
    ("variables/update/{key:.+}", "variables"),
)

# How each kind is deleted. A script is archived, which takes it out of the workspace just the same.
DELETIONS = (
    ("POST", "scripts/archive/p/{key:.+}", "scripts"),
    ("DELETE", "flows/delete/{key:.+}", "flows"),
    ("DELETE", "folders/delete/{key}", "folders"),
    ("DELETE", "resources/delete/{key:.+}", "resources"),
    ("DELETE", "resources/type/delete/{key}", "resource_types"),
    ("DELETE", "variables/delete/{key:.+}", "variables"),
    ("DELETE", "schedules/delete/{key:.+}", "schedules"),
)

# How each kind is read, one by one.
READS = (
    ("scripts/get/p/{key:.+}", "scripts"),
    ("flows/get/{key:.+}", "flows"),
    ("folders/get/{key}", "folders"),
    ("resources/type/get/{key}", "resource_types"),
    ("resources/get/{key:.+}", "resources"),
    ("variables/get/{key:.+}", "variables"),
)


@dataclasses.dataclass(frozen=True)
class Request:
    """One request as it arrived: method, path, query, and the JSON body (None without one)."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


class Workspace:
    """A Windmill workspace on 127.0.0.1, serving while its `with` block is open.

    folder: the folder f/kustomer is already there, with other people's work and permissions in it.
    hub_type: a resource type `kustomer` is already there, with the Hub's shape.
    admin: the token belongs to a workspace admin; by default to an ordinary developer.
    scripts_from: a directory whose files are served as if deployed, to a worker's import of a shared module.

    Every request but the one for the version must carry `token`. `requests` are all of them in order of arrival,
    and `writes` those that ask for a change.
    """

    id = "acme"
    token = "token-of-the-deployer"  # noqa: S105 - opens nothing but this stand-in

    def __init__(
        self,
        *,
        folder: bool = True,
        hub_type: bool = False,
        admin: bool = False,
        scripts_from: pathlib.Path | None = None,
    ) -> None:
        """Fill the workspace; it serves from `__enter__` on."""
        self.requests: list[Request] = []
        self.url = ""
        self._held = other_peoples_work()
        if not folder:
            for items in self._held.values():
                for key in [key for key in items if key == "kustomer" or key.startswith("f/kustomer/")]:
                    del items[key]
        if hub_type:
            self._held["resource_types"]["kustomer"] = copy.deepcopy(HUB_RESOURCE_TYPE)
        self._admin = admin
        self._scripts_from = scripts_from
        self._pushed: list[str] = []
        self._storage = Storage()

    def __enter__(self) -> Self:
        """Start serving on a free port."""
        self._loop = asyncio.new_event_loop()
        self._runner = web.AppRunner(self._application())
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Stop serving and end the thread."""
        try:
            asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @property
    def writes(self) -> list[Request]:
        """The requests that ask for a change: all but GET, and but the question put as a POST."""
        return [request for request in self.requests if request.method != "GET" and request.path != EXISTS]

    def holdings(self) -> Holdings:
        """A copy of what the workspace holds now: kind -> path or name -> item."""
        return copy.deepcopy(self._held)

    def hold(self, kind: str, path: str, item: Item) -> None:
        """Hold an item as if somebody had made it, or change the fields that `item` names."""
        self._held[kind].setdefault(path, {"path": path}).update(copy.deepcopy(item))

    def relock(self) -> list[windmill_locks.Job]:
        """Let the ten seconds after a push be over: lock anew what imports the pushed scripts, and return the jobs."""
        sources = {path: script["content"] for path, script in self._held["scripts"].items()}
        jobs = windmill_locks.jobs(self._pushed, sources)
        for path in {job[-1] for job in jobs}:
            self._held["scripts"][path]["lock"] = windmill_locks.lock(path, sources)
        self._pushed.clear()
        return jobs

    def resolve(self, value: Any) -> Any:
        """A job's arguments as the job gets them, with `$res:…`, `$var:…` and `$WM_…` replaced."""
        reserved = {"WM_WORKSPACE": self.id, "WM_TOKEN": self.token, "WM_BASE_URL": self.url.rstrip("/")}
        return resolved(value, self._held, reserved)

    def store(self, key: str, content: bytes | int, *, storage: str | None = None) -> None:
        """Put a file into the object storage: bytes, or a number of bytes that are made while they are sent.

        `windmill_storage.sha256_of` gives the digest of either. Naming another storage than the default makes it.
        """
        self._storage.held.setdefault(storage, {})[key] = content

    def stored(self, storage: str | None = None) -> dict[str, bytes]:
        """What is in the object storage, by key."""
        return {key: content for key, content in self._storage.held[storage].items() if isinstance(content, bytes)}

    def storage_fault(self, kind: StorageFault) -> None:
        """Let the next request for a file fail that has not been promised an earlier fault.

        cut: half of it comes, then the connection ends. error: 500. denied: 403. hang: nothing comes until
        `release`, then the file.
        """
        self._storage.faults.append(kind)

    def release(self) -> None:
        """Let the requests that hang now come to their end."""
        self._loop.call_soon_threadsafe(self._storage.let_go)

    async def _start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/"

    async def _stop(self) -> None:
        self._storage.let_go()
        await self._runner.cleanup()
        await asyncio.sleep(0)  # a connection that has only just come is let go in the loop's next turn
        await self._loop.shutdown_default_executor()

    def _application(self) -> web.Application:
        @web.middleware
        async def record_and_admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            is_json = request.can_read_body and request.content_type == "application/json"
            body = await request.json() if is_json else None
            self.requests.append(Request(request.method, request.path, dict(request.query), body))
            admitted = request.headers.get("Authorization") == f"Bearer {self.token}"
            if not admitted and request.path != VERSION:
                return web.Response(status=401, text="Unauthorized")
            return await handler(request)

        application = web.Application(middlewares=[record_and_admit])
        base = f"/api/w/{self.id}/"
        routes = application.router
        routes.add_get(VERSION, _answer("CE v1.819.0"))
        routes.add_get("/api/users/whoami", self._whoami)
        routes.add_post(EXISTS, _answer(True))
        routes.add_get(base + "users/whoami", self._whoami)
        routes.add_get(base + "workspaces/tarball", self._export)
        routes.add_get(base + "scripts/raw/p/{path:.+}", self._raw_script)
        routes.add_post(base + "scripts/create", self._create_script)
        routes.add_post(base + "flows/create", self._create_flow)
        routes.add_post(base + "flows/update/{key:.+}", self._update_flow)
        routes.add_post(base + "folders/create", self._create_folder)
        routes.add_post(base + "resources/type/create", self._create_resource_type)
        routes.add_post(base + "workspace_dependencies/create", self._create_dependencies)
        for path, kind in READS:
            routes.add_get(base + path, self._reading(kind))
        for path, kind in UPDATES:
            routes.add_post(base + path, self._updating(kind))
        for method, path, kind in DELETIONS:
            routes.add_route(method, base + path, self._deleting(kind))
        routes.add_get(base + "job_helpers/download_s3_file", self._storage.download)
        routes.add_post(base + "job_helpers/upload_s3_file", self._storage.upload)
        routes.add_get(base + "jobs_u/get/{id}", _answer({"parent_job": None}))
        routes.add_post(base + "job_metrics/set_progress/{id}", _answer(None))
        return application

    async def _whoami(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {
                "email": "deployer@example.com",
                "username": "deployer",
                "login_type": "password",
                "verified": True,
                "super_admin": False,
                "is_admin": self._admin,
                "groups": ["all"],
                "folders": list(self._held["folders"]),
            }
        )

    async def _export(self, request: web.Request) -> web.StreamResponse:
        def asked(parameter: str | None) -> bool:
            return parameter is not None and request.query.get(parameter) == "true"

        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as opened:
            for kind, name in EXPORT_NAMES.items():
                if asked(LEFT_OUT_BY.get(kind)) or (kind in PUT_IN_BY and not asked(PUT_IN_BY[kind])):
                    continue
                for key, item in self._held[kind].items():
                    if kind == "variables" and item["is_secret"] and asked("skip_secrets"):
                        continue
                    opened.writestr(name.format(key), json.dumps(_exported(item), indent=2))
                    if kind == "scripts":
                        opened.writestr(f"{key}.py", item["content"])
        return web.Response(body=archive.getvalue(), content_type="application/zip")

    async def _raw_script(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["path"]
        if self._scripts_from is not None:
            file = self._scripts_from / path
            if file.is_file() and file.resolve().is_relative_to(self._scripts_from.resolve()):
                return web.Response(text=file.read_text(encoding="utf-8"))
        script = self._held["scripts"].get(path.removesuffix(".py"))
        return _not_found(path) if script is None else web.Response(text=script["content"])

    async def _create_script(self, request: web.Request) -> web.StreamResponse:
        script: Item = await request.json()
        if refusal := self._without_folder(script["path"]):
            return refusal
        current = self._held["scripts"].get(script["path"])
        if current is not None and script.get("parent_hash") != current["hash"]:
            return web.Response(status=400, text=f"Path conflict for {script['path']}")
        digest = hashlib.sha256(json.dumps(script, sort_keys=True).encode()).hexdigest()[:16]
        kept = {key: value for key, value in script.items() if key not in ("parent_hash", "auto_parent")}
        unset: Item = {"schema": None, "lock": None, "extra_perms": {}}
        self._held["scripts"][script["path"]] = unset | kept | {"hash": digest}
        self._pushed.append(script["path"])
        return web.Response(status=201, text=digest)

    async def _create_flow(self, request: web.Request) -> web.StreamResponse:
        flow: Item = await request.json()
        path = flow["path"]
        if refusal := self._without_folder(path):
            return refusal
        if path in self._held["flows"]:
            return web.Response(status=400, text=f"Bad request: Flow {path} already exists")
        self._held["flows"][path] = deployed(flow)
        return web.Response(status=201, text=path)

    async def _update_flow(self, request: web.Request) -> web.StreamResponse:
        path = request.match_info["key"]
        if path not in self._held["flows"]:
            return _not_found(path)
        self._held["flows"][path] = deployed(await request.json())
        return web.Response(text=path)

    def _without_folder(self, path: str) -> web.Response | None:
        """A refusal: the folder has to be there first.

        https://www.windmill.dev/docs/core_concepts/groups_and_folders
        """
        space, folder, _ = path.split("/", 2)
        if space == "f" and folder not in self._held["folders"]:
            return web.Response(status=400, text=f"Bad request: folder {folder} does not exist")
        return None

    async def _create_folder(self, request: web.Request) -> web.StreamResponse:
        body: Item = await request.json()
        if body["name"] in self._held["folders"]:
            return web.Response(status=400, text=f"Bad request: Folder {body['name']} already exists")
        # The server always counts whoever makes a folder among its owners.
        owners = [*body.get("owners", []), DEPLOYER]
        defaults = {"display_name": body["name"], "summary": None}
        rights = {"owners": owners, "extra_perms": dict.fromkeys(owners, True)}
        self._held["folders"][body["name"]] = defaults | body | rights
        return web.Response(text=f"Created folder {body['name']}")

    async def _create_resource_type(self, request: web.Request) -> web.StreamResponse:
        body: Item = await request.json()
        if body["name"] in self._held["resource_types"]:
            return web.Response(status=400, text=f"Bad request: Resource type {body['name']} already exists")
        self._held["resource_types"][body["name"]] = body
        return web.Response(status=201, text=f"resource_type {body['name']} created")

    async def _create_dependencies(self, request: web.Request) -> web.StreamResponse:
        body: Item = await request.json()
        # Without a name they are the default of every script: a newer version takes the place of the last.
        self._held["dependencies"][body.get("name") or "default"] = body
        return web.Response(status=201, text="1")

    def _reading(self, kind: str) -> Handler:
        async def read(request: web.Request) -> web.StreamResponse:
            key = request.match_info["key"]
            item = self._held[kind].get(key)
            return _not_found(key) if item is None else web.json_response({"name": key} | item)

        return read

    def _updating(self, kind: str) -> Handler:
        async def update(request: web.Request) -> web.StreamResponse:
            key = request.match_info["key"]
            if key not in self._held[kind]:
                return _not_found(key)
            # The server leaves fields alone that an update does not name.
            self._held[kind][key].update(await request.json())
            return web.Response(text=f"updated {key}")

        return update

    def _deleting(self, kind: str) -> Handler:
        async def delete(request: web.Request) -> web.StreamResponse:
            key = request.match_info["key"]
            return _not_found(key) if self._held[kind].pop(key, None) is None else web.Response(text=key)

        return delete


def _answer(value: object) -> Handler:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(value)

    return answer


def _not_found(what: str) -> web.Response:
    return web.Response(status=404, text=f"Not found: {what}")


def _exported(item: Item) -> Item:
    """What the export says of an item: its definition, without name, version and empty permissions."""
    unsaid = {"name", "path", "content", "language", "hash", "skip_draft_deletion"}
    if not item.get("extra_perms"):
        unsaid.add("extra_perms")
    return {key: value for key, value in item.items() if key not in unsaid}

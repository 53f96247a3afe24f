"""A workspace's webhooks, by which others run its flows: https://www.windmill.dev/docs/core_concepts/webhooks."""

import asyncio
import uuid
from collections.abc import Callable, Container
from typing import Any

from aiohttp import web

# Runs the flow at a path with arguments, and says whether it succeeded and what its result is.
RunFlow = Callable[[str, dict[str, Any]], tuple[bool, Any]]

# What the documentation says; the server's published sources say 422. The body is the result either way.
FAILED = 200


class Jobs:
    """Runs flows in threads of their own, so that the server goes on serving them and others."""

    def __init__(self, flows: Container[str], run_flow: RunFlow) -> None:
        self._flows = flows
        self._run_flow = run_flow
        self._running: set[asyncio.Task[tuple[bool, Any]]] = set()

    async def run(self, request: web.Request) -> web.StreamResponse:
        """Start the flow, and answer the id of its job at once."""
        if request.match_info["path"] not in self._flows:
            return _no_flow(request)
        await self._start(request)
        return web.Response(status=201, text=str(uuid.uuid4()))

    async def run_wait_result(self, request: web.Request) -> web.StreamResponse:
        """Run the flow, and answer its result."""
        if request.match_info["path"] not in self._flows:
            return _no_flow(request)
        succeeded, result = await (await self._start(request))
        return web.json_response(result, status=200 if succeeded else FAILED)

    async def finish(self) -> None:
        """Wait for all that runs; an error in running a flow is raised here."""
        await asyncio.gather(*self._running)

    async def _start(self, request: web.Request) -> "asyncio.Task[tuple[bool, Any]]":
        body = await request.json() if await request.read() else {}
        arguments = body if isinstance(body, dict) else {"body": body}
        run = asyncio.to_thread(self._run_flow, request.match_info["path"], arguments)
        task = asyncio.get_running_loop().create_task(run)
        self._running.add(task)
        return task


def _no_flow(request: web.Request) -> web.Response:
    return web.Response(status=404, text=f"Not found: flow not found at name {request.match_info['path']}")

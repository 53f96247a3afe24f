"""A workspace's object storage, as a job reads files from it.

https://www.windmill.dev/docs/core_concepts/object_storage_in_windmill
"""

import asyncio
import collections
import hashlib
import random
from collections.abc import Iterator
from typing import Literal

from aiohttp import web

StorageFault = Literal["cut", "error", "hang", "denied"]

_CHUNK = 64 * 1024


def sha256_of(content: bytes | int) -> str:
    """The hex digest of what is stored; a made file of any size is never held whole."""
    digest = hashlib.sha256()
    for chunk in _chunks(content):
        digest.update(chunk)
    return digest.hexdigest()


class Storage:
    """The storages of a workspace: storage -> key -> content, and the faults that the next requests meet.

    The default storage is called None. The content is bytes, or a number: that many bytes which look random,
    are the same each time and are made while they are sent.

    What the server says of a failure isn't documented. The statuses and texts here are our choice, after the
    sources that Windmill publishes.
    """

    def __init__(self) -> None:
        self.held: dict[str | None, dict[str, bytes | int]] = {None: {}}
        self.faults: collections.deque[StorageFault] = collections.deque()
        self._released = asyncio.Event()

    def let_go(self) -> None:
        """Let the requests that hang now come to their end; to be called in the server's own thread."""
        self._released.set()
        self._released = asyncio.Event()

    async def download(self, request: web.Request) -> web.StreamResponse:
        """Send a file as the server does: in chunks, without saying how long it is."""
        key, storage = request.query["file_key"], request.query.get("storage")
        fault = self.faults.popleft() if self.faults else None
        if fault == "hang":
            await self._released.wait()
        if fault == "denied":
            return web.Response(status=403, text=f"Permission denied: {key}")
        if fault == "error":
            return web.Response(status=500, text="Internal: Error retrieving file: error sending request")
        if path := request.query.get("s3_resource_path"):
            return web.Response(status=404, text=f"Not found: Resource {path} not found")
        if storage not in self.held:
            return web.Response(status=500, text="Internal: No files storage resource defined at the workspace level")
        content = self.held[storage].get(key)
        if content is None:
            return web.Response(status=404, text=f"Not found: {key}: Object at location {key} not found")
        return await (_send_half if fault == "cut" else _send)(request, content)

    async def upload(self, request: web.Request) -> web.Response:
        """Keep a file, in place of what is there."""
        fault = self.faults.popleft() if self.faults else None
        if fault:
            return web.Response(status=403 if fault == "denied" else 500, text="Internal: Error writing file")
        key, storage = request.query["file_key"], request.query.get("storage")
        self.held.setdefault(storage, {})[key] = await request.read()
        return web.json_response({"file_key": key})


async def _send(request: web.Request, content: bytes | int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    for chunk in _chunks(content):
        await response.write(chunk)
    return response


async def _send_half(request: web.Request, content: bytes | int) -> web.StreamResponse:
    """Promise the whole, send the first half and close."""
    size = _size(content)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Content-Length": str(size)})
    await response.prepare(request)
    left = size // 2
    for chunk in _chunks(content):
        await response.write(chunk[:left])
        left -= len(chunk[:left])
        if not left:
            break
    if request.transport is not None:
        request.transport.close()
    return response


def _size(content: bytes | int) -> int:
    return content if isinstance(content, int) else len(content)


def _chunks(content: bytes | int) -> Iterator[bytes]:
    made = random.Random(0)
    for at in range(0, _size(content), _CHUNK):
        if isinstance(content, int):
            yield made.randbytes(min(_CHUNK, content - at))
        else:
            yield content[at : at + _CHUNK]

"""The page's server: what it answers, and where progress is streamed."""

import asyncio
import contextlib
import dataclasses
import importlib.resources
import json
import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

from aiohttp import web

from imagen_jax.cascade import picture_files
from imagen_jax.cascade.text_to_image import TextToImage
from imagen_jax.serving import asking, describing, guard
from imagen_jax.serving.limits import Limits
from imagen_jax.serving.queue import Full, Queue

PULSE = 15.0  # Seconds after which a silent stream shows that it is alive.
# Not those of the machine, which may call a script plain text.
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
STREAM = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}


class Bell:
    """Wakes all streams, from any thread."""

    def __init__(self):
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self.closed = False

    def next(self) -> asyncio.Event:
        """Set at the next ring; take it before looking, and nothing is missed."""
        return self._rung

    def ring(self) -> None:
        """From any thread."""
        with contextlib.suppress(RuntimeError):  # The server has ended.
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._rung.set()
        self._rung = asyncio.Event()


@dataclasses.dataclass
class Server:
    """What the handlers share."""

    model: TextToImage
    queue: Queue
    limits: Limits
    bell: Bell | None = None
    watchers: int = 0

    async def describe(self, request: web.Request) -> web.Response:
        """GET /api/model: what the page must know."""
        return answer(describing.model(self.model, self.limits))

    async def ask(self, request: web.Request) -> web.Response:
        """POST /api/drawings: join the queue."""
        if request.content_type != "application/json":
            return guard.refused(415, "JSON is required.")
        sent = await request.read()
        try:
            asked = await asyncio.to_thread(self._parse, sent)
        except ValueError as error:
            return guard.refused(400, " ".join(str(error).split()))
        try:
            unknown = self.model.unknown_words(asked.prompt)
            drawing = self.queue.put(asked, unknown)
        except Full as error:
            refused = guard.refused(429, str(error))
            refused.headers["Retry-After"] = "10"
            return refused
        return answer({"drawing": drawing.id, "unknown": list(unknown)}, 202)

    async def look(self, request: web.Request) -> web.Response:
        """GET /api/drawings/ID: how it stands."""
        drawing = self.queue.look(request.match_info["id"])
        if drawing is None:
            return gone()
        return answer(await asyncio.to_thread(describing.drawing, drawing))

    async def cancel(self, request: web.Request) -> web.Response:
        """POST /api/drawings/ID/cancel: keep what is done."""
        name = request.match_info["id"]
        if self.queue.look(name) is None:
            return gone()
        return answer({"cancelled": self.queue.cancel(name)})

    async def picture(self, request: web.Request) -> web.Response:
        """GET /api/drawings/ID/STAGE/PICTURE.png: with its settings inside."""
        drawing = self.queue.look(request.match_info["id"])
        samples = drawing.samples if drawing else None
        stage, place = request.match_info["stage"], int(request.match_info["picture"])
        if samples is None or stage not in samples.stage_names:
            return gone()
        index = samples.stage_names.index(stage)
        if place >= len(samples.stages[index]):
            return gone()
        png = await asyncio.to_thread(picture_files.png, samples, index, place)
        headers = {"Cache-Control": "private, max-age=86400"}
        return web.Response(body=png, content_type="image/png", headers=headers)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """GET /api/events?drawing=ID&drawing=ID: every change, until all have ended.

        One stream for all of a page's drawings: browsers open six at most.
        """
        names = list(dict.fromkeys(request.query.getall("drawing", [])))
        if not 1 <= len(names) <= self.limits.kept:
            return guard.refused(
                400, f"From 1 to {self.limits.kept} drawings can be watched."
            )
        if self.watchers >= self.limits.watchers:
            return guard.refused(429, "Too many pages watch; close one.")
        response = web.StreamResponse(headers={**STREAM, **guard.HEADERS})
        self.watchers += 1
        try:
            await response.prepare(request)
            await self._stream(response, names)
        except ConnectionError:
            pass  # The page is closed; what it asked for is drawn all the same.
        finally:
            self.watchers -= 1
        return response

    async def _stream(self, response: web.StreamResponse, names: list[str]) -> None:
        bell = self.bell
        assert bell is not None
        seen = dict.fromkeys(names, -1)
        while seen and not bell.closed:
            rung = bell.next()
            for name in list(seen):
                drawing = self.queue.look(name)
                if drawing is None:
                    told = {"drawing": name, "state": "gone"}
                elif drawing.version > seen[name]:
                    told = await asyncio.to_thread(
                        describing.drawing, drawing, seen[name]
                    )
                    seen[name] = drawing.version
                else:
                    continue
                await response.write(f"data: {json.dumps(told)}\n\n".encode())
                if drawing is None or drawing.state.ended:
                    del seen[name]
            if not seen:
                return
            try:
                await asyncio.wait_for(rung.wait(), PULSE)
            except TimeoutError:
                await response.write(b": alive\n\n")

    def _parse(self, sent: bytes) -> asking.Asked:
        try:
            body = json.loads(sent)
        except (ValueError, RecursionError) as error:
            raise ValueError("The request is no JSON.") from error
        return asking.parse(body, self.model, self.limits)


def make(
    model: TextToImage, queue: Queue, limits: Limits, who: guard.Guard
) -> web.Application:
    """The application: the page, and what it asks of the server."""
    server = Server(model, queue, limits)
    app = web.Application(middlewares=who.middlewares, client_max_size=limits.body)
    drawing = "/api/drawings/{id:[A-Za-z0-9_-]+}"
    app.add_routes(
        [
            *(web.get(path, page) for path, page in pages()),
            web.get("/api/model", server.describe),
            web.get("/api/events", server.watch),
            web.post("/api/drawings", server.ask),
            web.get(drawing, server.look),
            web.post(f"{drawing}/cancel", server.cancel),
            web.get(
                f"{drawing}/{{stage}}/{{picture:[0-9]{{1,4}}}}.png", server.picture
            ),
        ]
    )

    async def wake(_) -> AsyncIterator[None]:
        server.bell = Bell()
        queue.listener = server.bell.ring
        yield

    async def end(_) -> None:
        assert server.bell is not None
        server.bell.closed = True
        server.bell.ring()

    app.cleanup_ctx.append(wake)
    app.on_shutdown.append(end)
    return app


def pages() -> Iterator[tuple[str, Any]]:
    """(path, handler) of each file of the page, read once; there are no others."""
    folder = importlib.resources.files("imagen_jax.serving") / "page"
    named = {"index.html": "/", "enter.html": guard.ENTRY}
    for file in folder.iterdir():
        kind = KINDS[pathlib.PurePath(file.name).suffix]
        yield named.get(file.name, f"/{file.name}"), page(file.read_bytes(), kind)


def page(body: bytes, kind: str):
    """A handler that answers with a file."""
    charset = None if kind.startswith("image/") else "utf-8"

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset=charset)

    return handler


def answer(value: Any, status: int = 200) -> web.Response:
    """JSON."""
    return web.json_response(value, status=status)


def gone() -> web.Response:
    """For what is not there, or not any more."""
    return guard.refused(
        404, "That drawing is not here any more; ask for it again with its settings."
    )


def run(app: web.Application, host: str, port: int, greeting: str) -> None:
    """Serve until Ctrl-C."""
    web.run_app(
        app,
        host=host,
        port=port,
        print=lambda _: print(greeting, flush=True),
        access_log=None,  # Its lines would hold the token.
        shutdown_timeout=2.0,
    )

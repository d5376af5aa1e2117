"""A tiny cascade behind a server in this process."""

import asyncio
import contextlib
import threading

import pytest
from aiohttp import test_utils

from imagen_jax.serving import app, asking, guard, limits, queue
from tests import tiny_cascade


@pytest.fixture(scope="session")
def model():
    words = frozenset(["a", "red", "cat", "dog"])
    return tiny_cascade.model(words=words)


class Door:
    """Draws when it is opened: lets a test see what waits and what is being drawn."""

    def __init__(self, model):
        self._model = model
        self.steps = threading.Semaphore(0)
        self.asked = []

    def draw(self, asked, progress):
        self.asked.append(asked)

        def wait(moment):
            assert self.steps.acquire(timeout=60)
            progress(moment)

        return asking.draw(self._model, asked, wait)

    def open(self):
        self.steps.release(10_000)


@pytest.fixture
def door(model):
    return Door(model)


@pytest.fixture
def serving(model, door):
    """A context: a client of a server whose drawings go through the door."""

    @contextlib.asynccontextmanager
    async def start(who=guard.Guard(), **bounds):  # noqa: B008
        allowed = limits.Limits(**bounds)
        drawings = queue.Queue(door.draw, allowed)
        server = test_utils.TestServer(app.make(model, drawings, allowed, who))
        try:
            async with test_utils.TestClient(server) as client:
                yield client
        finally:
            door.open()
            await asyncio.to_thread(drawings.close)

    return start

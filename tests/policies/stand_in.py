"""A server that speaks the true protocol and computes with the in-process engine: vLLM's build does not fit into CI.

The routes, the guard, the wire, the sessions and the updates are the product's; only what vLLM does is done otherwise here.
"""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import torch
import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from policies.generation import Prompt, Request
from policies.served import updates, wire
from policies.served.files import small_files
from policies.served.plugin.app import Refused, Server, build
from policies.served.plugin.guard import Guard

TOKEN = "sesame"


class EngineBackend:
    """The in-process engine behind the routes."""

    def __init__(self, engine, folder, vision=True):
        self.engine, self.folder, self.vision = engine, str(folder), vision
        self.adapters = {}
        self.asked = []  # (name of the adapter, seed) of every reply
        self.broken = 0  # replies that are lost before one is given
        self.hold = None  # an event that replies wait for
        self._pool = ThreadPoolExecutor(8)
        if not vision:
            engine._ids = lambda prompt: prompt.ids

    async def _run(self, work, *args):
        import asyncio

        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *args)

    async def info(self):
        V, d = self.engine.head_weight.shape
        return {
            "model": self.folder, "vocabulary": V, "hidden_size": d, "dtype": "float32", "max_tokens": 4096, "vision": self.vision,
            "tokens": len(self.engine.tokenizer) + V,
        }  # fmt: skip

    def _prompt(self, asked):
        if not self.vision:
            return SimpleNamespace(ids=torch.tensor(asked.ids), images=())
        text = self.engine.tokenizer.decode(asked.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return Prompt(text, tuple(Image.fromarray(picture.numpy()) for _, picture in asked.images))

    async def generate(self, asked):
        self.asked.append((asked.adapter, asked.seed))
        if self.broken:
            self.broken -= 1
            raise Refused(503, "lost", "The engine gave the request up.")

        def work():
            if self.hold is not None:
                self.hold.wait(30)
            adapter = self.adapters[asked.adapter] if asked.adapter else None
            return self.engine.submit(Request(self._prompt(asked), asked.sampling, asked.seed, adapter, asked.capture))

        reply = await self._run(work)
        tensors = {"tokens": reply.tokens, "logprobs": reply.logprobs}
        if reply.hidden is not None:
            tensors["hidden"] = reply.hidden
        return {"finish": reply.finish, "prompt_tokens": reply.prompt_tokens}, tensors

    async def score(self, asked):
        adapter = self.adapters[asked.adapter] if asked.adapter else None
        found = await self._run(self.engine.score, self._prompt(asked), torch.tensor(asked.reply), adapter)
        return {}, {"hidden": found.hidden, "logprobs": found.logprobs}

    async def put(self, name, message):
        fields, tensors = wire.unpack(message)
        self.adapters[name] = updates.adapter_of(wire.theta_of(fields, tensors, tuple(self.engine.head_weight.shape)))
        return self.adapters[name].nbytes

    async def drop(self, names):
        for name in names:
            self.adapters.pop(name, None)

    async def update(self, message, base, new):
        answer, adapter = await self._run(updates.computed, message, self.engine.head_weight, self.adapters[base] if base else None)
        if adapter is not None:
            self.adapters[new] = adapter
        return answer

    async def head(self):
        return wire.pack({}, {"weight": self.engine.head_weight})

    def checkpoint(self):
        return wire.pack({}, small_files(self.folder))


class StandIn:
    """A server on a free port of the loopback, in a thread; stopped and started again it is as a server that has crashed."""

    def __init__(self, engine, folder, *, vision=True, **guard):
        self.make = lambda: EngineBackend(engine, folder, vision)
        self._guard = guard
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        self.backend = self.make()
        self.server = Server(self.backend)
        app = Starlette(routes=[Mount(wire.PREFIX, build(self.server)), Route("/health", lambda _: PlainTextResponse("ok"))])
        self.guard = Guard(app, token=TOKEN, **self._guard)
        listening = socket.create_server(("127.0.0.1", self.port))
        self._uvicorn = uvicorn.Server(uvicorn.Config(self.guard, log_level="warning", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._uvicorn.run, kwargs={"sockets": [listening]}, daemon=True)
        self._thread.start()
        while not self._uvicorn.started:
            time.sleep(0.01)
        return self

    def stop(self):
        self._uvicorn.should_exit = True
        self._thread.join(30)

    def crash(self):
        """Gone, and there again, with nothing that it knew."""
        self.stop()
        self.start()

    def close(self):
        self.stop()

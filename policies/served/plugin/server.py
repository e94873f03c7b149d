"""The server's process, in vLLM's environment: vLLM's OpenAI server with our routes beside its own.

What it takes that vLLM does not: ``--agentlab-*``, see :func:`main`; everything else is vLLM's.  The token comes in the environment.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from policies.served import wire

EXTENSION = "policies.served.plugin.worker.HeadExtension"
READY = "agentlab: serving on"


async def serve(args: Any, ours: argparse.Namespace) -> None:
    """Start the engine, answer until a signal comes, let what runs end."""
    import uvicorn
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.entrypoints.launchers.app import build_app

    from policies.served.plugin.app import Server, build
    from policies.served.plugin.backend import VllmBackend
    from policies.served.plugin.guard import Guard

    token, parent = os.environ.pop(wire.TOKEN_VARIABLE), os.getppid()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    async with build_async_engine_client(args) as engine:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        backend = VllmBackend(engine, ours.agentlab_source)
        await backend.start()
        tasks = await engine.get_supported_tasks()
        app = build_app(args, tasks, engine.model_config)
        await init_app_state(engine, app.state, args, tasks)
        app.mount(wire.PREFIX, build(Server(backend, adapter_mb=ours.agentlab_adapter_mb)))
        guard = Guard(app, token=token, max_queue=ours.agentlab_max_queue, max_body_mb=ours.agentlab_max_body_mb)
        listening = socket.create_server((args.host, args.port))
        host, port = listening.getsockname()[:2]
        config = uvicorn.Config(guard, log_level="warning", timeout_keep_alive=60, access_log=False)
        server = _uvicorn(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        address = f"http://{host}:{port}"
        print(f"{READY} {address}", flush=True)
        if ours.agentlab_ready:
            part = Path(f"{ours.agentlab_ready}.part")
            part.write_text(address)
            part.replace(ours.agentlab_ready)
        watch = asyncio.create_task(_ended(engine, parent))
        await asyncio.wait([asyncio.create_task(stop.wait()), watch, serving], return_when=asyncio.FIRST_COMPLETED)
        dead = bool(engine.errored)
        if not dead:
            print("agentlab: ending; requests that run are finished first", flush=True)
            await guard.drain(ours.agentlab_drain_s)
        watch.cancel()
        server.should_exit = True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(serving, 10)
    if dead:
        raise SystemExit("agentlab: vLLM's engine has died; see the lines above")


async def _ended(engine: Any, parent: int) -> None:
    """Until the engine has died, or whoever started this process is gone."""
    while not engine.errored and os.getppid() == parent:
        await asyncio.sleep(0.5)


def _uvicorn(config: Any) -> Any:
    import uvicorn

    class Uvicorn(uvicorn.Server):
        """Signals are ours: requests that run are finished before the sockets are closed."""

        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            yield

    return Uvicorn(config)


def main(argv: list[str]) -> None:
    """Parse what is ours and what is vLLM's, and serve."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--agentlab-source", required=True)
    parser.add_argument("--agentlab-max-queue", type=int, default=256)
    parser.add_argument("--agentlab-max-body-mb", type=float, default=1024)
    parser.add_argument("--agentlab-adapter-mb", type=float, default=16384)
    parser.add_argument("--agentlab-drain-s", type=float, default=120)
    parser.add_argument("--agentlab-ready", default="")
    ours, rest = parser.parse_known_args(argv)

    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    args = make_arg_parser(FlexibleArgumentParser()).parse_args(rest)
    validate_parsed_serve_args(args)
    args.worker_extension_cls = EXTENSION
    args.host = args.host or "127.0.0.1"
    asyncio.run(serve(args, ours))


if __name__ == "__main__":
    main(sys.argv[1:])

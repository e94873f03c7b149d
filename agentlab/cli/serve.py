"""``agentlab serve``: a model behind vLLM, with the weights axis.  And ``agentlab fetch vllm``, which makes vLLM's environment."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from agentlab.cli.terminal import Terminal

app = typer.Typer()
out = Terminal()
err = Terminal(stderr=True)

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": False})
def serve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="Policy name, checkpoint folder, or hub id.")] = "ui-tars-nano",
    host: Annotated[
        str, typer.Option(help="Address to listen on. Any but the loopback: who has the token comes in.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000,
    dtype: Annotated[str | None, typer.Option(help="Torch dtype of the weights.", show_default="the checkpoint's")] = None,
    max_batch: Annotated[int | None, typer.Option(min=1, help="Replies generated at a time.", show_default="vLLM's")] = None,
    context_tokens: Annotated[
        int | None,
        typer.Option("--context", min=1, help="Longest prompt and reply together, in tokens.", show_default="the model's"),
    ] = None,
    images: Annotated[int, typer.Option(min=0, help="Most pictures of a prompt.")] = 32,
    tensor_parallel: Annotated[int | None, typer.Option(min=1, help="GPUs that one copy of the model is spread over.")] = None,
    data_parallel: Annotated[int | None, typer.Option(min=1, help="Copies of the model.")] = None,
    max_queue: Annotated[int, typer.Option(min=1, help="Requests at a time; more are told to come again.")] = 256,
    max_body_mb: Annotated[float, typer.Option(min=1, help="Largest body of a request.")] = 1024,
    adapter_mb: Annotated[
        float,
        typer.Option(min=1, help="Memory of all adapters; beyond it those that were not used longest are sent again at need."),
    ] = 16384,
    drain_s: Annotated[
        float, typer.Option(min=0, help="How long a server that ends waits for the replies that it has begun.")
    ] = 120,
) -> None:
    """Serve a model by vLLM with per-session head adapters, H, scoring and updates; arguments after -- are vLLM's own."""
    from policies.registry import model_source
    from policies.served.load import servable
    from policies.served.process import Process, vllm_arguments
    from policies.served.wire import TOKEN_VARIABLE

    given = os.environ.get(TOKEN_VARIABLE)
    extra = vllm_arguments(
        dtype=dtype, max_batch=max_batch, context=context_tokens, images=images if images else None,
        tensor_parallel=tensor_parallel, data_parallel=data_parallel,
    )  # fmt: skip
    options = {"max_queue": max_queue, "max_body_mb": max_body_mb, "adapter_mb": adapter_mb, "drain_s": drain_s}
    if host not in LOOPBACK:
        err.print(
            f"note: everyone who reaches {host} and has the token can use this server; the connection is not encrypted.",
            markup=False, soft_wrap=True,
        )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="agentlab-serve-") as folder:
        source = servable(model_source(model), Path(folder))
        process = Process(source, host=host, port=port, token=given, options=options, extra=[*extra, *context.args])
        with _passed_on(process.signal):
            try:
                url = process.wait()
                out.print(f"{model} at {url}; --policy served:{url} uses it.", markup=False, highlight=False, soft_wrap=True)
                if not given:
                    out.print(f"export {TOKEN_VARIABLE}={process.token}", markup=False, highlight=False, soft_wrap=True)
                code = process.join()
            finally:
                process.close()
    if code:
        raise typer.Exit(code)


class _passed_on:
    """Signals that would end us end the server, which finishes what it has begun; then we end."""

    def __init__(self, pass_on: Callable[[int], None]) -> None:
        self._pass_on = pass_on

    def __enter__(self) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            self._pass_on(signal.SIGTERM)

        self._old = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def fetch_vllm(
    device: Annotated[str | None, typer.Option(help="cpu or cuda.", show_default="what this machine has")] = None,
    index: Annotated[
        str | None,
        typer.Option(help="A further package index: PyTorch's own, where the CPU build of torch is not to be had otherwise."),
    ] = None,
) -> None:
    """Make the environment that `agentlab serve` and model.engine=vllm run vLLM in; its pins are not ours."""
    from policies.served.process import install

    install(lambda line: err.print(line, markup=False, highlight=False, soft_wrap=True), kind=device, index=index)

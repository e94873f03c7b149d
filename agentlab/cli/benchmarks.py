"""What the command line asks of benchmarks: the verbs ``benchmarks``, ``fetch`` and ``setup``, and their subcommands by name."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table
from typer.core import TyperGroup

from agentlab.cli.terminal import Terminal
from envs.benchmark import Benchmark, OnBytes, Watcher
from envs.errors import UsageError, did_you_mean

out = Terminal()
err = Terminal(stderr=True)

app = typer.Typer()


@app.command("benchmarks")
def benchmarks() -> None:
    """List the benchmarks that are installed, with their parts."""
    show_benchmarks()


def show_benchmarks() -> None:
    """A line for each benchmark and each of its parts; a broken one is shown as broken, beside the others."""
    from envs.suites import installed_benchmarks

    table = Table("suite", "what it is", box=None)
    broken: list[UsageError] = []
    for name, benchmark in installed_benchmarks():
        if not isinstance(benchmark, Benchmark):
            broken.append(benchmark)
            continue
        table.add_row(escape(name), escape(benchmark.summary))
        for part, summary in benchmark.parts.items():
            table.add_row(escape(f"  {name}-{part}"), escape(summary))
        if benchmark.takes_files:
            table.add_row(escape(f"  {name}:PATH"), "your own tasks, from files")
    out.print(table)
    out.print("A benchmark that is not installed runs as my.module:MyBenchmark.", markup=False, highlight=False)
    for error in broken:
        err.print(f"broken: {error.message} {error.hint}", markup=False, highlight=False, soft_wrap=True)


def with_ability(ability: str) -> dict[str, Benchmark]:
    """The installed benchmarks that have a ``fetch``, ``setup``, ``importer``, ``build`` or ``start``; broken ones are left out."""
    from envs.suites import installed_benchmarks

    found = ((name, benchmark) for name, benchmark in installed_benchmarks() if isinstance(benchmark, Benchmark))
    return {name: benchmark for name, benchmark in found if getattr(benchmark, ability) is not None}


VLLM = "vllm"
"""What can be fetched and is no benchmark."""


class BenchmarkGroup(TyperGroup):
    """A verb whose subcommands are the benchmarks that know it; they are looked for when somebody asks."""

    ability: str
    what: str
    """What there is nothing of where a benchmark lacks it."""
    make: Callable[[Benchmark], Callable[..., None]]

    def list_commands(self, ctx: Any) -> list[str]:
        return list(with_ability(self.ability))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from envs.plugins import is_module_name
        from envs.suites import find_benchmark

        known = with_ability(self.ability)
        if is_module_name(cmd_name):
            known[cmd_name] = find_benchmark(cmd_name)
        if cmd_name not in known or getattr(known[cmd_name], self.ability) is None:
            hint = did_you_mean(cmd_name, known, what="benchmark")
            raise UsageError(f"There is nothing to {self.what} {cmd_name!r}.", hint)
        return self._command(cmd_name, known[cmd_name])

    def _command(self, name: str, benchmark: Benchmark) -> Any:
        return _single(name, type(self).make(benchmark))


def _single(name: str, function: Callable[..., None]) -> Any:
    """A function as a command."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name)(function)
    command = typer.main.get_command(single)
    command.name = name
    return command


def _fetch_command(benchmark: Benchmark) -> Callable[..., None]:
    """The benchmark's own ``fetch`` with a watcher that shows bars; its other parameters are the options."""
    fetch: Any = benchmark.fetch

    @functools.wraps(fetch)
    def command(**options: Any) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=err, disable=not err.is_terminal) as progress:

            def begin(what: str, size: int | None) -> OnBytes:
                bar = progress.add_task(what, total=size)
                return lambda count: progress.advance(bar, count)

            fetch(Watcher(lambda line: err.print(escape(line), soft_wrap=True, highlight=False), begin), **options)

    signature = inspect.signature(fetch, eval_str=True)
    parameters = list(signature.parameters.values())[1:]
    command.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del command.__wrapped__  # type: ignore[attr-defined]
    return command


def _setup_command(benchmark: Benchmark) -> Callable[..., None]:
    setup: Any = benchmark.setup

    def command() -> None:
        setup(lambda line: out.print(line, markup=False, soft_wrap=True))

    command.__doc__ = setup.__doc__
    return command


class FetchGroup(BenchmarkGroup):
    """``agentlab fetch NAME``."""

    ability, what, make = "fetch", "fetch for", staticmethod(_fetch_command)

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), VLLM]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name != VLLM:
            return super().get_command(ctx, cmd_name)
        from agentlab.cli.serve import fetch_vllm

        return _single(VLLM, fetch_vllm)


class SetupGroup(BenchmarkGroup):
    """``agentlab setup NAME``."""

    ability, what, make = "setup", "set up for", staticmethod(_setup_command)


fetch_app = typer.Typer(
    cls=FetchGroup, help="Fetch what a benchmark or vLLM needs; the same command again continues.", no_args_is_help=True
)
setup_app = typer.Typer(cls=SetupGroup, help="Install what a benchmark needs on this machine.", no_args_is_help=True)


@fetch_app.callback()
@setup_app.callback()
def _group() -> None:
    pass


def list_tasks(
    suite: Annotated[str | None, typer.Argument(help="Task suite; without one, the benchmarks are listed.")] = None,
) -> None:
    """List the tasks of a suite, and those left out with the reason."""
    if suite is None:
        show_benchmarks()
        return
    from envs.suites import get_suite

    found = get_suite(suite)
    for name in found.task_names():
        out.print(name, highlight=False, markup=False)
    for name, reason in sorted(found.excluded().items()):
        out.print(f"[dim]{escape(name)}  excluded: {escape(reason)}[/dim]", highlight=False, soft_wrap=True)


app.command("tasks")(list_tasks)

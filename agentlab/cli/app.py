"""The verbs of ``agentlab``.  Thin: every command resolves its arguments, calls one function and prints.

Heavy imports (torch, transformers, a browser) happen inside the commands, so that ``agentlab --help`` is immediate.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from agentlab.cli import arguments
from agentlab.cli import benchmarks as benchmarks_cli
from agentlab.cli import cluster as cluster_cli
from agentlab.cli import containers as containers_cli
from agentlab.cli import experience as experience_cli
from agentlab.cli import export as export_cli
from agentlab.cli import families as families_cli
from agentlab.cli import serve as serve_cli
from agentlab.cli import traces as traces_cli
from agentlab.cli.doctor import examine, line_of
from agentlab.cli.failures import of_the_machine
from agentlab.cli.terminal import PIPE_CLOSED, Terminal
from envs.errors import InfrastructureError, LabError, UsageError

if TYPE_CHECKING:
    from agentlab.run.config import RunConfig

app = typer.Typer(
    help="UI agents that improve between attempts at the same task, in words and in weights.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(benchmarks_cli.app)  # without a name: its verbs are ours
app.add_typer(benchmarks_cli.setup_app, name="setup")
app.add_typer(benchmarks_cli.fetch_app, name="fetch")
app.add_typer(containers_cli.app, name="containers")
app.add_typer(cluster_cli.app, name="cluster")
app.add_typer(experience_cli.app, name="experience")
app.add_typer(traces_cli.app)
app.add_typer(export_cli.app)
app.add_typer(families_cli.app)
app.add_typer(serve_cli.app)

out = Terminal()
err = Terminal(stderr=True)

INTERNAL_ERROR = 70
"""Exit code of a bug of ours (sysexits.h: EX_SOFTWARE)."""
TyperError: Any = typer.BadParameter.__mro__[2]
"""Any error of Typer's about a command line; Typer exports only some kinds of it."""


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        out.print(version("rosa-agentlab"))
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    suite: Annotated[
        str, typer.Argument(help="Benchmark or task suite (`agentlab benchmarks` lists them), or my.module:MyBenchmark.")
    ],
    part: Annotated[str | None, typer.Option("--suite", help="Part of the benchmark, or a path to tasks of your own.")] = None,
    provider: Annotated[
        str | None, typer.Option(help="Where desktops and devices come from, e.g. light, official, ours, upstream, HOST:PORT.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="Policy name, checkpoint, or my.module:MyPolicy.", show_default="ui-tars-nano")
    ] = None,
    adapt: Annotated[
        str | None, typer.Option(help="What is learned between attempts, e.g. none, rosa, rosa2.", show_default="none")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="What the weights learn from a failure: sparse (-1 per step), critique, or judge.", show_default="sparse"
        ),
    ] = None,
    attempts: Annotated[int | None, typer.Option(help="Attempts per task.", show_default="5")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of instances and sampling.", show_default="0")] = None,
    limit: Annotated[
        int | None, typer.Option(help="Number of task instances.", show_default="all of a fixed list, else 100")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="Sessions at every instance, drawn with different seeds: pass@k, pass^k.", show_default="1")
    ] = None,
    tasks: Annotated[str | None, typer.Option(help="Comma-separated task names.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Tasks in flight at a time.", show_default="min(4, 2 x CPUs); one emulator")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(help="Make environments on the nodes of a Ray cluster: ray, or ray://HOST:10001.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Run directory.", show_default="runs/<suite>-<policy>-<adapt>-s<seed>")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature; 0 is greedy.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Settings of a published score (`agentlab recipes` lists them); all others win over it.")
    ] = None,
    experience: Annotated[
        Path | None, typer.Option(help="Directory of what earlier sessions learned: read when one starts, added to when it ends.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a YAML, TOML or JSON file.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Any setting; may be repeated.")] = None,
    track: Annotated[str | None, typer.Option(help="Also tell a tracker: wandb, mlflow or tensorboard.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be run, and stop.")] = False,
    retry_infra: Annotated[bool, typer.Option("--retry-infra", help="Also retry sessions that machinery failures ended.")] = False,
) -> None:
    """Run a policy on a task suite, several attempts per task; the same command again continues where it stopped."""
    from agentlab.run.resolve import resolve
    from envs.suites import sub_suite

    flags: dict[str, Any] = {
        "suite": sub_suite(suite, part) if part else suite,
        "env": {"provider": provider},
        "policy": policy,
        "adapt": {"preset": adapt, "words": {"credit": reward}},
        "attempts": attempts,
        "seed": seed,
        "limit": limit,
        "repeats": repeats,
        "tasks": arguments.names(tasks, "--tasks"),
        "workers": workers,
        "cluster": cluster,
        "out": out_dir,
        "track": track,
        "experience": {"dir": experience},
        "sampling": {"temperature": temperature},
    }
    resolved = resolve(flags, file=config, sets=sets or [], recipe=_recipe(recipe, suite))
    if dry_run:
        from agentlab.cli.dry_run import show

        show(resolved, out)
        return
    _run(resolved, retry_infra)


def _recipe(name: str | None, suite: str) -> dict[str, Any] | None:
    """The settings of a recipe; a note if it is for another benchmark or says what else must match."""
    if name is None:
        return None
    from agentlab.run.recipes import recipe_named, settings_of_recipe
    from envs.suites import locate

    recipe = recipe_named(name)
    if locate(suite)[0].name != recipe.benchmark:
        err.print(f"note: {recipe.name} is a recipe of {recipe.benchmark}.", markup=False, soft_wrap=True)
    if recipe.note:
        err.print(f"note: {recipe.note}", markup=False, soft_wrap=True)
    return settings_of_recipe(recipe)


def _run(config: RunConfig, retry_infra: bool) -> None:
    from agentlab.disk.files import check_output
    from agentlab.disk.runs import run_title
    from agentlab.results.metrics import summarize
    from agentlab.results.report import failures_section, summary_table
    from agentlab.results.tables import TerminalTable
    from agentlab.run.parts import prepare
    from agentlab.run.progress import RunProgress
    from agentlab.run.runner import Runner
    from agentlab.run.tracking import both, tracking

    def say(line: str) -> None:
        err.print(escape(line))

    check_output(config.folder)
    prepare(config, say)
    runner = Runner(config, retry_infrastructure=retry_infra, say=say)
    with RunProgress(err, len(runner.tasks), config.attempts) as progress, tracking(config, len(runner.tasks), say) as tracker:
        runner.on_row, progress.about = both(progress.row, tracker.row), runner.about
        try:
            rows = runner.run(both(progress.start, tracker.start))
        except KeyboardInterrupt:
            err.print(f"Stopped. The same command continues the run in {escape(str(runner.folder))}.")
            raise typer.Exit(130) from None
    summary = summarize(rows, attempts=config.attempts, planned=len(runner.tasks))
    out.print(summary_table(summary, run_title(config.to_json())))
    if summary.infrastructure_failures:
        out.print(TerminalTable(failures_section(rows)))
    out.print(f"Run directory: {runner.folder}", markup=False, soft_wrap=True)
    if summary.infrastructure_sessions:
        err.print("Some sessions were ended by machinery failures; --retry-infra retries them.")
        if not any(row.graded for row in rows):
            raise typer.Exit(InfrastructureError.exit_code)  # nothing was attempted


@app.command()
def settings(
    name: Annotated[str | None, typer.Argument(help="A setting, the end of one, or a section, e.g. adapt.words.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="The whole list as the page docs/settings.md.")] = False,
) -> None:
    """List every setting of a run: its default, what it means, and what it may be."""
    from agentlab.run import settings as listed

    if markdown:
        out.file.write(listed.markdown())
        return
    for setting in listed.matching(name) if name is not None else listed.all_settings():
        for line in listed.lines_of(setting):
            out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def doctor(
    node: Annotated[
        bool, typer.Option("--node", help="How many environments this machine has room for, as a node of a cluster.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --node: only what `ray start --resources` takes.")] = False,
) -> None:
    """Check this machine: one line per thing, and the command that mends what is missing."""
    if node or as_json:
        cluster_cli.say_room(as_json)
        return
    missing = 0
    for finding in examine():
        out.print(line_of(finding), highlight=False, soft_wrap=True)
        missing += finding.needed and not finding.ok
    if missing:
        raise typer.Exit(3)


@app.command()
def pretrain(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the checkpoint and its model card.")],
    tasks: Annotated[
        str | None, typer.Option(help="Comma-separated task names.", show_default="those of the bundled policy")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for screens and state.", show_default="~/.cache/agentlab/pretrain")
    ] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Expert episodes per task.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training batches without guidance.")] = None,
    guided_steps: Annotated[int | None, typer.Option(min=1, help="Training batches with guidance among them.")] = None,
    eval_instances: Annotated[int | None, typer.Option(min=0, help="Held-out instances per task; 0 skips the evaluation.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Training processes.", show_default="up to 2")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and order.")] = None,
    base: Annotated[Path | None, typer.Option(help="Checkpoint to go on from. [default: from scratch]")] = None,
    plan: Annotated[Path | None, typer.Option(help="JSON file of settings; what is given here wins.")] = None,
) -> None:
    """Make the bundled policy from the scripted experts (hours on two cores); the same command again continues."""
    from agentlab.pretrain import plan_of, run_pretrain

    learned = arguments.names(tasks, "--tasks")
    given: dict[str, Any] = {
        "work": work, "tasks": tuple(learned) if learned else None, "episodes": episodes, "steps": steps,
        "guided_steps": guided_steps, "eval_instances": eval_instances, "workers": workers, "seed": seed, "base": base,
    }  # fmt: skip
    run_pretrain(plan_of(plan, out=out_dir, **{key: value for key, value in given.items() if value is not None}), err)


def main() -> None:
    """Entry point: errors meant for a person are printed as one, anything else is a bug and keeps its traceback."""
    arguments.prepare_streams()
    try:
        arguments.check(sys.argv[1:])
        code = app(prog_name="agentlab", standalone_mode=False)
        sys.stdout.flush()  # what cannot be written is said here, not when Python ends
    except LabError as error:
        code = _say(error)
    except TyperError as error:
        code = _misused(error)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:  # noqa: BLE001 - the last stop: what the machine refused is said in a line; a bug is printed in full
        code = _stopped(error)
    sys.exit(code if isinstance(code, int) else 0)


def _say(error: LabError) -> int:
    _tell(f"[bold red]error:[/bold red] {escape(arguments.clipped(error.message))}", soft_wrap=True)
    if error.hint:
        _tell(escape(arguments.clipped(error.hint)), soft_wrap=True)
    return error.exit_code


def _tell(text: str, *, soft_wrap: bool = False) -> None:
    try:
        err.print(text, highlight=False, soft_wrap=soft_wrap)
    except OSError:  # standard error is on a full disk: the exit code is all that can be said
        arguments.drop(sys.stderr)


def _misused(error: Any) -> int:
    """A command line that Typer does not take, in the form of our own errors; a group without a verb shows its help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
        _tell(escape(error.format_message()))
        return int(error.exit_code)
    message = arguments.one_line(error.format_message().splitlines())
    return _say(UsageError(message, f"`{context.command_path} --help` lists what it takes." if context is not None else ""))


def _stopped(error: Exception) -> int:
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads, or the disk is full: what is left is dropped, or Python complains when it ends
        arguments.drop(sys.stdout)
    if isinstance(error, BrokenPipeError):  # as Terminal.on_broken_pipe, of what was written without it
        return PIPE_CLOSED
    known = of_the_machine(error)
    if known is not None:
        return _say(known)
    traceback.print_exc()
    return INTERNAL_ERROR

"""The verbs of ``agentlab``.  Thin: every command resolves its arguments, calls one function and prints.

Heavy imports (torch, transformers, a browser) happen inside the commands, so that ``agentlab --help`` is immediate.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from agentlab import containers_cli
from envs.errors import LabError

if TYPE_CHECKING:
    from agentlab.config import RunConfig

app = typer.Typer(
    help="UI agents that improve between attempts at the same task, in words and in weights.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
setup = typer.Typer(help="Install what a benchmark needs on this machine.", no_args_is_help=True)
app.add_typer(setup, name="setup")
app.add_typer(containers_cli.app, name="containers")

out = Console()
err = Console(stderr=True)

INTERNAL_ERROR = 70
"""Exit code of a bug of ours (sysexits.h: EX_SOFTWARE)."""


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
    suite: Annotated[str, typer.Argument(help="Task suite: miniwob, miniwob-experts, miniwob-all.")],
    policy: Annotated[str | None, typer.Option(help="Policy name or checkpoint path. [default: ui-tars-nano]")] = None,
    adapt: Annotated[
        str | None, typer.Option(help="What is learned between attempts, e.g. none, rosa, rosa2. [default: none]")
    ] = None,
    attempts: Annotated[int | None, typer.Option(help="Attempts per task. [default: 5]")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of instances and sampling. [default: 0]")] = None,
    limit: Annotated[int | None, typer.Option(help="Number of task instances. [default: 100]")] = None,
    tasks: Annotated[str | None, typer.Option(help="Comma-separated task names.")] = None,
    workers: Annotated[int | None, typer.Option(help="Tasks in flight at a time. [default: min(4, 2 x CPUs)]")] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Run directory. [default: runs/<suite>-<policy>-<adapt>-s<seed>]")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature; 0 is greedy.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings from a YAML, TOML or JSON file.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Any setting; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be run, and stop.")] = False,
    retry_infra: Annotated[bool, typer.Option("--retry-infra", help="Also retry sessions that machinery failures ended.")] = False,
) -> None:
    """Run a policy on a task suite, several attempts per task; the same command again continues where it stopped."""
    from agentlab.config import resolve

    flags: dict[str, Any] = {
        "suite": suite,
        "policy": policy,
        "adapt": {"preset": adapt},
        "attempts": attempts,
        "seed": seed,
        "limit": limit,
        "tasks": [name.strip() for name in tasks.split(",") if name.strip()] if tasks else None,
        "workers": workers,
        "out": out_dir,
        "sampling": {"temperature": temperature},
    }
    resolved = resolve(flags, file=config, sets=sets or [])
    if dry_run:
        from agentlab.dry_run import show

        show(resolved, out)
        return
    _run(resolved, retry_infra)


def _run(config: RunConfig, retry_infra: bool) -> None:
    from agentlab.metrics import summarize
    from agentlab.progress import RunProgress
    from agentlab.report import summary_table
    from agentlab.runner import Runner, prepare

    prepare(config, lambda line: err.print(escape(line)))
    runner = Runner(config, retry_infrastructure=retry_infra)
    with RunProgress(err, len(runner.tasks), config.attempts) as progress:
        runner.on_row = progress.row
        try:
            rows = runner.run(progress.start)
        except KeyboardInterrupt:
            err.print(f"Stopped. The same command continues the run in {escape(str(runner.folder))}.")
            raise typer.Exit(130) from None
    summary = summarize(rows, attempts=config.attempts, planned=len(runner.tasks))
    out.print(summary_table(summary, f"{config.suite} · {config.policy} · {config.adapt.preset} · seed {config.seed}"))
    out.print(f"Run directory: {runner.folder}", soft_wrap=True)
    if summary.infrastructure_sessions:
        err.print("Some sessions were ended by machinery failures; --retry-infra makes them again.")


@app.command("tasks")
def list_tasks(suite: Annotated[str, typer.Argument(help="Task suite.")]) -> None:
    """List the tasks of a suite, and those left out with the reason."""
    from envs.suites import get_suite

    found = get_suite(suite)
    for name in found.task_names():
        out.print(name, highlight=False)
    for name, reason in sorted(found.excluded().items()):
        out.print(f"[dim]{escape(name)}  excluded: {escape(reason)}[/dim]", highlight=False, soft_wrap=True)


@app.command()
def doctor() -> None:
    """Check this machine: one line per thing, and the command that mends what is missing."""
    from agentlab.doctor import examine

    missing = 0
    for finding in examine():
        mark = "[green]ok[/green]" if finding.ok else "[red]missing[/red]" if finding.needed else "[yellow]absent[/yellow]"
        mend = f"  →  {escape(finding.mend)}" if finding.mend and not finding.ok else ""
        out.print(f"{mark}  {escape(finding.what)}: {escape(finding.detail)}{mend}", highlight=False, soft_wrap=True)
        missing += finding.needed and not finding.ok
    if missing:
        raise typer.Exit(3)


@setup.command("miniwob")
def setup_miniwob() -> None:
    """Find a browser for MiniWoB++, or install one."""
    from envs.miniwob.setup import ensure_browser

    ensure_browser(lambda line: out.print(line, markup=False, soft_wrap=True))


@app.command()
def pretrain(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the checkpoint and its model card.")],
    tasks: Annotated[str | None, typer.Option(help="Comma-separated task names. [default: those of the bundled policy]")] = None,
    work: Annotated[Path | None, typer.Option(help="Folder for screens and state. [default: ~/.cache/agentlab/pretrain]")] = None,
    episodes: Annotated[int | None, typer.Option(min=1, help="Expert episodes per task.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training batches without guidance.")] = None,
    guided_steps: Annotated[int | None, typer.Option(min=1, help="Training batches with guidance among them.")] = None,
    eval_instances: Annotated[int | None, typer.Option(min=0, help="Held-out instances per task; 0 skips the evaluation.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Training processes. [default: up to 2]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of weights and order.")] = None,
) -> None:
    """Make the bundled policy from the scripted experts (hours on two cores); the same command again continues."""
    from agentlab.pretrain import PretrainConfig, run_pretrain

    given: dict[str, Any] = {
        "work": work, "tasks": tuple(tasks.split(",")) if tasks else None, "episodes": episodes, "steps": steps,
        "guided_steps": guided_steps, "eval_instances": eval_instances, "workers": workers, "seed": seed,
    }  # fmt: skip
    run_pretrain(PretrainConfig(out=out_dir, **{key: value for key, value in given.items() if value is not None}))


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, and write nothing.")] = False,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder to write to. [default: RUN/report]")] = None,
    strips: Annotated[int, typer.Option(help="Also draw this many sessions, those that learned first.", min=0)] = 0,
) -> None:
    """Report on a run: tables here; Markdown, a web page and figures in RUN/report."""
    from agentlab import report as reports
    from agentlab.pages import markdown as as_markdown
    from agentlab.runs import inside, read_run

    run = read_run(run_dir)
    made = reports.make_report(run)
    if markdown:
        sys.stdout.write(as_markdown(made.title, made.sections))
        return
    folder = out_dir or inside(run_dir / "report", run_dir)
    made.write(folder)
    reports.draw_sessions(run, folder, strips)
    out.print(escape(made.title), highlight=False)
    for section in made.sections:
        out.print(reports.terminal_table(section))
    out.print(f"Written: {folder / 'report.html'} and report.md beside it", soft_wrap=True, markup=False)


@app.command()
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B …", help="Run directories; the first is the reference.")],
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs over different tasks or attempts, over what they share.")
    ] = False,
    by_name: Annotated[bool, typer.Option("--by-name", help="Resample task names, not single instances.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Also write Markdown, a web page and the figure here.")] = None,
) -> None:
    """Compare runs, paired by task: what differs in their settings, and whether their results do."""
    from agentlab.compare import compare as compare_runs
    from agentlab.pages import markdown as as_markdown
    from agentlab.report import terminal_table
    from agentlab.runs import read_run

    found = compare_runs([read_run(folder) for folder in run_dirs], force=force, by_name=by_name)
    sections = [section for section in found.sections() if section.rows]
    if out_dir is not None:
        found.write(out_dir)
    if markdown:
        sys.stdout.write(as_markdown(found.title, sections))
        return
    for section in sections:
        out.print(terminal_table(section))
        out.print(escape(section.note), highlight=False)


@app.command()
def replay(
    target: Annotated[Path, typer.Argument(metavar="RUN[/TASK[/ATTEMPT]]", help="What to replay.")],
    solved: Annotated[bool, typer.Option("--solved", help="Only attempts that solved their task.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Give an attempt up, ungraded, at its first divergence.")] = False,
    masks: Annotated[
        list[str] | None, typer.Option("--mask", metavar="X,Y,W,H", help="Do not compare this part of the screen; may be repeated.")
    ] = None,
    tolerance: Annotated[int, typer.Option(help="Difference of a colour channel that does not count.", min=0, max=255)] = 0,
    share: Annotated[float, typer.Option(help="Share of the pixels that may differ.", min=0.0, max=1.0)] = 0.0,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="ENV.KEY=VALUE", help="Option of the environment.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder to write to. [default: RUN/replay]")] = None,
) -> None:
    """Send recorded actions to a fresh environment, compare the screens and grade again; exit code 1 if anything differs."""
    from agentlab import replay_report
    from agentlab.replay import Options, env_options, find_target, parse_mask, replay_all
    from agentlab.report import terminal_table
    from agentlab.runs import inside

    options = Options(tuple(parse_mask(m) for m in masks or []), tolerance, share, stop, solved)
    found = find_target(target)
    done, notes = replay_all(found, options, env_options(sets or []), lambda line: err.print(escape(line), soft_wrap=True))
    folder = out_dir or inside(found.run.folder / "replay", found.run.folder)
    replay_report.write(folder, f"Replay of {target}", done, notes)
    for section in replay_report.sections(done, notes):
        if section.rows:
            out.print(terminal_table(section))
    for note in notes:
        out.print(note, markup=False, soft_wrap=True)
    out.print(f"Written: {folder / 'replay.html'}", soft_wrap=True, markup=False)
    if not all(one.reproduced for one in done):
        raise typer.Exit(7 if all(one.reproduced or one.machinery for one in done) else 1)


@app.command()
def rescore(
    target: Annotated[Path, typer.Argument(metavar="RUN[/TASK[/ATTEMPT]]", help="Recorded attempts to learn from again.")],
    adapt: Annotated[str | None, typer.Option(help="Adaptation to try. [default: the run's own]")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Any setting; may be repeated.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder to write to. [default: RUN/rescore]")] = None,
) -> None:
    """Compute weight updates again from recorded attempts, without an environment: Δθ, residual, KL, and each reply's probability."""
    from agentlab import rescore as rescoring
    from agentlab.replay import find_target
    from agentlab.report import terminal_table
    from agentlab.runs import inside

    found = find_target(target)
    done = rescoring.rescore(found, rescoring.settings(found.run, adapt, sets or []))
    folder = out_dir or inside(found.run.folder / "rescore", found.run.folder)
    rescoring.write(folder, f"Updates of {target} again", done)
    for section in rescoring.sections(done):
        out.print(terminal_table(section))
    out.print(f"Written: {folder / 'rescore.html'}", soft_wrap=True, markup=False)


@app.command()
def view(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN…]", help="Runs, or folders of runs. [default: runs]")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 8321,
    export_dir: Annotated[
        Path | None, typer.Option("--export", metavar="DIR", help="Write a bundle that opens without a server.")
    ] = None,
) -> None:
    """Look at runs in the browser: attempts side by side, step by step; live while a run is going."""
    paths = run_dirs or [Path("runs")]
    if export_dir is not None:
        from agentlab.view.export import export

        count = export(paths, export_dir)
        out.print(f"{count} sessions written; open {export_dir / 'index.html'}", soft_wrap=True, markup=False)
        return
    from agentlab.view.server import serve

    out.print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", markup=False)
    serve(paths, port)


def main() -> None:
    """Entry point: errors meant for a person are printed as one, anything else is a bug and keeps its traceback."""
    try:
        app(prog_name="agentlab")
    except LabError as error:
        err.print(f"[bold red]error:[/bold red] {escape(error.message)}", highlight=False, soft_wrap=True)
        if error.hint:
            err.print(escape(error.hint), highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # noqa: BLE001 - the last stop: printed in full, and the exit code says that it is a bug
        traceback.print_exc()
        sys.exit(INTERNAL_ERROR)

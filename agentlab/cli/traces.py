"""The verbs that look at runs: ``report``, ``compare``, ``replay``, ``rescore``, ``view``.  Thin, like :mod:`agentlab.cli.app`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from agentlab.cli.terminal import Terminal

app = typer.Typer()
out = Terminal()
err = Terminal(stderr=True)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, and write nothing.")] = False,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder to write to.", show_default="RUN/report")] = None,
    strips: Annotated[int, typer.Option(help="Also draw this many sessions, those that learned first.", min=0)] = 0,
) -> None:
    """Report on a run: tables here; Markdown, a web page and figures in RUN/report."""
    from agentlab.disk.files import check_output, inside
    from agentlab.disk.runs import read_run
    from agentlab.results import report as reports
    from agentlab.results.pages import markdown as as_markdown
    from agentlab.results.tables import TerminalTable

    run = read_run(run_dir)
    folder = out_dir or inside(run_dir / "report", run_dir)
    if not markdown:
        check_output(folder)
    made = reports.make_report(run, strips)
    if markdown:
        sys.stdout.write(as_markdown(made.title, made.sections))
        return
    made.write(folder)
    out.print(escape(made.title), highlight=False)
    for section in made.sections:
        out.print(TerminalTable(section))
    out.print(f"Written: {folder / 'report.html'} and report.md beside it", soft_wrap=True, markup=False)


@app.command()
def compare(
    run_dirs: Annotated[list[Path], typer.Argument(metavar="RUN_A RUN_B …", help="Run directories; the first is the reference.")],
    force: Annotated[
        bool, typer.Option("--force", help="Compare runs over different tasks or attempts, over what they share.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Also write Markdown, a web page and the figure here.")] = None,
) -> None:
    """Compare runs, paired by task: what differs in their settings, and whether their results do."""
    from agentlab.disk.files import check_output
    from agentlab.disk.runs import read_run
    from agentlab.results.compare import compare as compare_runs
    from agentlab.results.pages import markdown as as_markdown
    from agentlab.results.tables import TerminalTable

    if out_dir is not None:
        check_output(out_dir)
    found = compare_runs([read_run(folder) for folder in run_dirs], force=force)
    sections = [section for section in found.sections() if section.rows]
    if out_dir is not None:
        found.write(out_dir)
    if markdown:
        sys.stdout.write(as_markdown(found.title, sections))
        return
    for section in sections:
        out.print(TerminalTable(section))
        out.print(escape(section.note), highlight=False)


@app.command()
def replay(
    target: Annotated[Path, typer.Argument(metavar="RUN[/TASK[/ATTEMPT]]", help="What to replay.")],
    solved: Annotated[bool, typer.Option("--solved", help="Only attempts that solved their task.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Give an attempt up, ungraded, at its first divergence.")] = False,
    masks: Annotated[
        list[str] | None, typer.Option("--mask", metavar="X,Y,W,H", help="Do not compare this part of the screen; may be repeated.")
    ] = None,
    whole: Annotated[bool, typer.Option("--whole", help="Also compare what changes by itself, such as a clock.")] = False,
    tolerance: Annotated[int, typer.Option(help="Difference of a colour channel that does not count.", min=0, max=255)] = 0,
    share: Annotated[float, typer.Option(help="Share of the pixels that may differ.", min=0.0, max=1.0)] = 0.0,
    patience: Annotated[float, typer.Option(help="Seconds for which a screen that differs is looked at again.", min=0.0)] = 3.0,
    provider: Annotated[
        str | None,
        typer.Option(help="Where desktops and devices come from.", show_default="as the run says, if that is not an address"),
    ] = None,
    suite: Annotated[str | None, typer.Option(help="The tasks, for a run over your own: a path, or module:Name.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="ENV.KEY=VALUE", help="Option of the environment.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder to write to.", show_default="RUN/replay")] = None,
) -> None:
    """Send recorded actions to a fresh environment, compare the screens and grade again; exit code 1 if anything differs."""
    from agentlab.disk.files import check_output, inside
    from agentlab.replay import report as replay_report
    from agentlab.replay.masks import parse_mask
    from agentlab.replay.replay import Options, replay_all
    from agentlab.replay.targets import env_options, find_target
    from agentlab.results.tables import TerminalTable
    from agentlab.run.progress import followed

    options = Options(tuple(parse_mask(m) for m in masks or []), whole, tolerance, share, patience, stop, solved)
    found = find_target(target)
    given = env_options([*(f"env.provider={p}" for p in [provider] if p), *(sets or [])])
    folder = out_dir or inside(found.run.folder / "replay", found.run.folder)
    check_output(folder)
    done, notes = replay_all(
        found,
        options,
        given,
        lambda line: err.print(escape(line), soft_wrap=True),
        suite=suite,
        follow=lambda attempts: followed(err, "attempts", attempts, found.count()),
    )
    replay_report.write(folder, f"Replay of {target}", done, notes)
    for section in replay_report.sections(done, notes):
        if section.rows:
            out.print(TerminalTable(section))
    for note in notes:
        out.print(note, markup=False, soft_wrap=True)
    out.print(f"Written: {folder / 'replay.html'}", soft_wrap=True, markup=False)
    if not all(one.reproduced for one in done):
        raise typer.Exit(7 if all(one.reproduced or one.machinery for one in done) else 1)


@app.command()
def rescore(
    target: Annotated[Path, typer.Argument(metavar="RUN[/TASK[/ATTEMPT]]", help="Recorded attempts to learn from again.")],
    adapt: Annotated[str | None, typer.Option(help="Adaptation to try.", show_default="the run's own")] = None,
    policy: Annotated[str | None, typer.Option(help="The run's policy, where it is not one of ours by name.")] = None,
    suite: Annotated[str | None, typer.Option(help="The tasks, for a run over your own.")] = None,
    sets: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Any setting; may be repeated.")] = None,
    scores_only: Annotated[
        bool, typer.Option("--scores-only", help="Do not ask what the policy would now do (that costs as much as acting did).")
    ] = False,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder to write to.", show_default="RUN/rescore")] = None,
) -> None:
    """Compute weight updates again from recorded attempts, without an environment, and what the adapted policy would now do."""
    from agentlab.disk.files import check_output, inside
    from agentlab.replay import rescore as rescoring
    from agentlab.replay.targets import find_target
    from agentlab.results.tables import TerminalTable

    found = find_target(target)
    config = rescoring.settings(found.run, adapt, sets or [], policy=policy, suite=suite)
    folder = out_dir or inside(found.run.folder / "rescore", found.run.folder)
    check_output(folder)
    done = rescoring.rescore(found, config, propose=not scores_only)
    rescoring.write(folder, f"Updates of {target} again", done)
    for section in rescoring.sections(done):
        if section.rows:
            out.print(TerminalTable(section))
        out.print(section.note, markup=False, highlight=False)
    for key in rescoring.not_taken(found.run):
        out.print(f"Not taken from the run, give it with --set if needed: model.{key}.", markup=False, soft_wrap=True)
    out.print(f"Written: {folder / 'rescore.html'}", soft_wrap=True, markup=False)
    rescoring.require_some(done)


@app.command()
def view(
    run_dirs: Annotated[
        list[Path] | None, typer.Argument(metavar="[RUN…]", help="Runs, or folders of runs.", show_default="runs")
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

        count = export(paths, export_dir, lambda line: err.print(line, markup=False, soft_wrap=True))
        out.print(f"{count} sessions written; open {export_dir / 'index.html'}", soft_wrap=True, markup=False)
        return
    from agentlab.view.server import serve

    serve(paths, port, lambda line: out.print(line, markup=False))

"""The part of ``docs/results.md`` about one study of ``comparison.py``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from comparison_tables import (
    REFERENCES,
    cluster_table,
    every_k,
    main_table,
    price_table,
    replies_table,
    settings_table,
    theorem_table,
    versus_table,
)
from formats import markdown_table, share
from measures import Difference, Made, difference, load, price
from measures import share as solved_share
from studies import Study

from agentlab.results import figures

LINES = 6
"""Of the figure: more cannot be told apart."""


def part(study: Study, results: Path, image: Callable[[str], Path], level: str = "##", *, drawn: Sequence[str] = ()) -> str:
    """The study's tables; what is missing is said with the command that makes it.

    Args:
        drawn: Methods of the figure, beside the opponents; without any the study's first.
    """
    made = load(results / f"{study.name}-report.jsonl")
    command = f"python benchmarks/comparison.py {study.name} --stage report"
    if made is None or not made.methods:
        return f"{level} {study.suite}\n\nNot run yet: `{command}`.\n"
    names = sorted({o.name for found in made.methods.values() for o in found})
    lines = [name for name in (*REFERENCES, *drawn) if name in made.methods] if drawn else list(made.methods)
    bands = {
        name: [(0.0, (0.0, 0.0)), *(solved_share(made.methods[name], k) for k in range(2, made.attempts + 1))]
        for name in lines[:LINES]
    }
    n = max(len(found) for found in made.methods.values())
    figures.success_curve(
        bands, image(f"{study.name}.png"), title=f"{study.suite}, {Path(study.policy).name}, {n} failing first attempts"
    )
    failing, cluster = sum(o.ended == "failed" for o in made.firsts), "task" if study.suite == "miniwob" else "family"
    clusters = "tasks" if study.suite == "miniwob" else "families"
    command = made.about.get("command", command)
    parts = [
        f"{level} {study.suite}, `{study.policy}`\n",
        f"{len(made.firsts)} first attempts, greedy, {share(made.first_success)} % solved, {failing} failed; every method goes on from "
        f"those recorded attempts, of {len(names)} {clusters}. Seeds {', '.join(map(str, made.about['seeds']))}; settings were chosen on "
        f"seeds {', '.join(map(str, study.tuning))}, and no instance is in both. n: instances the row has, of those wanted. In brackets "
        f"95 % intervals that resample whole {clusters}.\n",
        *_unfinished(made),
        f"```sh\n{command}\npython benchmarks/report.py\n```\n",
        f"![Solved within k attempts](img/{study.name}.png)\n",
        "Solved within k attempts, percent of the failing first attempts:\n",
        main_table(made),
        "The last column is extrapolated: the share of failing first attempts that were corrected, times the share of all first attempts "
        "that failed.\n",
        "What it took, retries only (a forward pass is one row of one call of the model, a prefill one that reads a prompt):\n",
        price_table(made),
    ]
    for reference in (r for r in REFERENCES if r in made.methods):
        paired = f"points, paired by instance; p of a sign-flip test over {clusters}; instances won/lost:\n"
        parts += [f"Minus `{reference}`, {paired}", versus_table(made, reference)]
    parts += ["Every k:\n", every_k(made)]
    parts += [f"Per {cluster}, solved within five:\n", cluster_table(made, study, guesses_of(study))]
    parts += ["Replies and updates:\n", replies_table(made)]
    if theorem := theorem_table(made):
        parts += [
            "Error terms of ROSA2's Theorem 4.1 (‖R‖ and ‖Δθ‖² are to be smaller under the guidance written after the attempt), both "
            "with p linear in θ as in the paper (Eq. 4); medians:\n",
            theorem,
        ]
    parts += ["Settings:\n", settings_table(made)]
    return "\n".join(parts)


def guesses_of(study: Study) -> dict[str, int]:
    """How many answers there are to guess from, of the families where they are few."""
    if study.suite != "reasoning":
        return {}
    from envs.reasoning.gym import FAMILIES

    return {name: family.guesses for name, family in FAMILIES.items() if family.guesses}


def _finished(made: Made, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in made.methods and len(made.methods[name]) >= made.about["methods"][name]["wanted"]]


def _unfinished(made: Made) -> list[str]:
    finished = _finished(made, list(made.methods))
    short = [name for name in made.methods if name not in finished]
    if not short:
        return []
    names = ", ".join(f"`{name}`" for name in short)
    return [f"**Not finished**: {names}. The command goes on; rows with different n are compared over what they share.\n"]


def headline(studies: Sequence[tuple[Study, Sequence[str]]], results: Path, k: int) -> str:
    """One table of what counts: each study's opponents and the methods named, against both opponents; rows that are not
    finished are left out.

    A method that is only for tasks with feedback is compared over those tasks; which information a row uses is a column.
    """
    rows = []
    for study, methods in studies:
        made = load(results / f"{study.name}-report.jsonl")
        for name in _finished(made, (*REFERENCES, *methods)) if made is not None else ():
            found = made.methods[name]
            cells = [_points_and_interval(_minus(made, name, reference, k)) for reference in REFERENCES]
            cost = _relative_cost(made, name, k)
            where = "MiniWoB++" if study.suite == "miniwob" else study.suite
            uses = ", ".join(made.about["methods"][name]["uses"])
            rows.append((where, f"`{name}`", uses, str(len(found)), share(solved_share(found, k)[0]), *cells, cost))
    header = ("suite", "method", "learns from", "n", f"solved @{k}, %", *(f"minus `{r}`" for r in REFERENCES), "forward passes")
    return markdown_table(header, rows) if rows else "Nothing has been measured yet.\n"


def told_apart(studies: Sequence[tuple[Study, Sequence[str]]], results: Path, k: int) -> tuple[list[str], list[str]]:
    """Of the methods named those whose interval against both opponents is above 0, and those that are below 0 against one, in words."""
    better, worse = [], []
    for study, methods in studies:
        made = load(results / f"{study.name}-report.jsonl")
        for name in _finished(made, methods) if made is not None else ():
            found = [d for d in (_minus(made, name, reference, k) for reference in REFERENCES) if d is not None]
            words = f"`{name}` on {'MiniWoB++' if study.suite == 'miniwob' else study.suite}"
            if found and all(d.interval[0] > 0 for d in found):
                better.append(words)
            elif any(d.interval[1] < 0 for d in found):
                worse.append(words)
    return better, worse


def _minus(made: Made, method: str, reference: str, k: int) -> Difference | None:
    """The method against an opponent, over the instances that both have; None where one of them was not run."""
    if method == reference or method not in made.methods or reference not in made.methods:
        return None
    return difference(made.methods[reference], made.methods[method], k)


def _points_and_interval(d: Difference | None) -> str:
    return "–" if d is None else f"{100 * d.points:+.1f} ({100 * d.interval[0]:+.1f} … {100 * d.interval[1]:+.1f})"


def _relative_cost(made: Made, method: str, k: int) -> str:
    """Forward passes per solved instance, as a multiple of the first opponent's over the instances that both have."""
    if REFERENCES[0] not in made.methods:
        return "–"
    reference = made.methods[REFERENCES[0]]
    both = {o.instance for o in reference} & {o.instance for o in made.methods[method]}
    own, theirs = (price([o for o in some if o.instance in both], k).forward for some in (made.methods[method], reference))
    return f"{own / theirs:.2f} ×" if own and theirs else "–"

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
from formats import share
from measures import Difference, Made, difference, load, price
from measures import share as solved_share
from studies import Study

from agentlab.results import figures

LINES = 6
"""Of the figure: more cannot be told apart."""


def part(study: Study, results: Path, image: Callable[[str], Path], level: str = "##") -> str:
    """The study's tables; what is missing is said with the command that makes it."""
    made = load(results / f"{study.name}-report.jsonl")
    command = f"python benchmarks/comparison.py {study.name} --stage report"
    if made is None or not made.methods:
        return f"{level} {study.suite}\n\nNot run yet: `{command}`.\n"
    names = sorted({o.name for found in made.methods.values() for o in found})
    bands = {
        name: [(0.0, (0.0, 0.0)), *(solved_share(found, k) for k in range(2, made.attempts + 1))]
        for name, found in list(made.methods.items())[:LINES]
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


def _unfinished(made: Made) -> list[str]:
    short = [name for name, found in made.methods.items() if len(found) < made.about["methods"][name]["wanted"]]
    if not short:
        return []
    names = ", ".join(f"`{name}`" for name in short)
    return [f"**Not finished**: {names}. The command goes on; rows with different n are compared over what they share.\n"]


def sentence(study: Study, results: Path, methods: Sequence[str], references: Sequence[str], k: int) -> str:
    """What methods are worth against others, in one clause with intervals and prices; "" where they or the others are missing."""
    made = load(results / f"{study.name}-report.jsonl")
    parts, most = [], 0
    for method in methods if made is not None else ():
        told = _against(made, method, references, k)
        if told:
            parts.append(f"`{method}` {' and '.join(text for text, _ in told)}")
            most = max(most, *(d.n for _, d in told))
    where = "MiniWoB++" if study.suite == "miniwob" else f"`{study.suite}`"
    return f"on {most} failing first attempts of {where} (`{study.policy}`) {', '.join(parts)}" if parts else ""


def worse(study: Study, results: Path, methods: Sequence[str], references: Sequence[str], k: int) -> list[str]:
    """The methods that are below one of the others by more than the interval, in words."""
    made = load(results / f"{study.name}-report.jsonl")
    found = {m: [d for _, d in _against(made, m, references, k) if d.interval[1] < 0] for m in methods} if made is not None else {}
    return [f"`{method}` is worse than that on {study.suite}" for method, some in found.items() if some]


def _against(made: Made | None, method: str, references: Sequence[str], k: int) -> list[tuple[str, Difference]]:
    """The points of a method over each of the others, with the interval and the price, over the instances that both have."""
    if made is None or method not in made.methods:
        return []
    parts = []
    for name in (one for one in references if one in made.methods):
        found = difference(made.methods[name], made.methods[method], k)
        if found is None:
            continue
        low, high = found.interval
        both = {o.instance for o in made.methods[name]} & {o.instance for o in made.methods[method]}
        own, theirs = (price([o for o in made.methods[row] if o.instance in both], k).forward for row in (method, name))
        cost = f", at {own / theirs:.2f} times its forward passes" if own and theirs else ""
        parts.append((f"{100 * found.points:+.1f} over `{name}` ({100 * low:+.1f} … {100 * high:+.1f}{cost})", found))
    return parts

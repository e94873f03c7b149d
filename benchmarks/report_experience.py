"""The tables of a stream with experience, from what ``benchmarks/experience.py`` stored."""

from __future__ import annotations

from typing import Any

from formats import markdown_table, number, share
from scipy.stats import binomtest

Json = dict[str, Any]
PARTS = (("first half", "stream"), ("second half", "stream"), ("all", "stream"), ("forgetting", ""), ("transfer", ""))
TOLD = {"forgetting": "its first sessions again", "transfer": "unseen task names"}


def experience(data: Json) -> str:
    """One stream under several settings, paired with the frozen policy."""
    rows = []
    for name, found in data["rows"].items():
        for label, where in PARTS:
            gain = found[where].get(label) if where else found.get(label)
            if gain:
                rows.append((f"`{name}`", TOLD.get(label, label), *_numbers(gain, several=bool(where))))
    header = ("row", "part", "sessions", "success@1 frozen", "with experience", "points", "won/lost", "p", "attempts per solved")
    where = {"reasoning": "`reasoning`", "miniwob": "MiniWoB++"}.get(data["suite"], f"`{data['suite']}`")
    made_by = f" Made by commit {', '.join(data['commits'])}." if "commits" in data else ""
    frequent = (
        " most frequent answer: no model; the answer that solved most sessions of the family so far, where that has done better than the "
        "frozen policy: about all that a bias of the answers can learn."
        if "most frequent answer" in data["rows"]
        else ""
    )
    return "\n".join([
        f"## Experience: a stream of {where}, `{data['policy']}`, seed {data['seed']}\n",
        f"{data['limit']} sessions of at most {data['attempts']} attempts in an order fixed by seed {data['seed']}; settings were chosen "
        "on other seeds. Every row is paired with the frozen policy (`no-repeat`, nothing read) over the same order: success at the first "
        "attempt, in points, with 95 % intervals and p (sign-flip test) that take whole task names; p is not corrected for the number of "
        "rows. words: own solved examples (and lessons, by the engine `rules`, which has none for answers to questions); weights: "
        "\u03b8\u2081 out of stored tokens; both. What they learn from: whether earlier attempts were right. First attempts "
        "are greedy, later ones sampled at "
        f"the preset's temperature.{frequent}{made_by}\n",
        *([f"{data['note']}\n"] if "note" in data else []),
        f"```sh\n{data['command']}\n```\n",
        markdown_table(header, rows),
        "\nBy task, second half: solved at the first attempt, frozen and with experience (won/lost):\n",
        _by_task(data),
        _worse(data),
    ])  # fmt: skip


def _numbers(gain: Json, several: bool) -> tuple[str, ...]:
    low, high = (100 * end for end in gain["interval"])
    each = gain.get("attempts_per_solved") if several else None
    per = " \u2192 ".join(number(value, 2) for value in each) if each else "\u2013"
    return (
        str(gain["sessions"]), f"{share(gain['reference'])} %", f"{share(gain['run'])} %",
        f"{100 * gain['difference']:+.1f} ({low:+.1f} \u2026 {high:+.1f})", f"{gain['won']}/{gain['lost']}", f"{gain['p']:.2g}", per,
    )  # fmt: skip


Paired = tuple[int, int, int, int]
"""Of a task: sessions, solved at the first attempt with experience, won and lost against the frozen policy."""


def _second_half(data: Json) -> dict[str, dict[str, Paired]]:
    """Of every row, the frozen one first, and every task."""
    stored = data["outcomes"]["stream"]
    half = len(stored["sessions"]) // 2
    names = [name for name, _ in stored["sessions"]][half:]
    once = {row: [at == 1 for at in found][half:] for row, found in stored["solved_at"].items()}
    found: dict[str, dict[str, Paired]] = {}
    for row, solved in once.items():
        for task in sorted(set(names)):
            pairs = [(once["frozen"][n], solved[n]) for n, name in enumerate(names) if name == task]
            won, lost = pairs.count((False, True)), pairs.count((True, False))
            found.setdefault(row, {})[task] = (len(pairs), sum(other for _, other in pairs), won, lost)
    return found


def _by_task(data: Json) -> str:
    found = _second_half(data)
    rows = []
    for task, (sessions, frozen, _, _) in found["frozen"].items():
        cells = [f"{solved} ({won}/{lost})" for _, solved, won, lost in (found[row][task] for row in found if row != "frozen")]
        rows.append((task, str(sessions), str(frozen), *cells))
    return markdown_table(("task", "sessions", *(f"`{row}`" for row in found)), rows)


def _worse(data: Json) -> str:
    """The tasks that a row does worse at, if chance alone would seldom do that much; not corrected for their number."""
    told = []
    for row, tasks in _second_half(data).items():
        for task, (_, _, won, lost) in tasks.items():
            p = float(binomtest(won, won + lost).pvalue) if lost > won else 1.0
            if p < 0.05:
                told.append(f"{task} under `{row}` ({won} won, {lost} lost, p = {p:.2g})")
    if not told:
        return "No task is significantly worse under any row (sign test per task, p < 0.05, not corrected).\n"
    return f"Significantly worse (sign test per task, not corrected): {'; '.join(told)}.\n"

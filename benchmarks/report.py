"""Tables and figures of the measured claims, from ``benchmarks/results/*.json`` alone; nothing is run.

    python benchmarks/report.py

Writes ``docs/results.md`` and ``docs/img/*.png``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from formats import markdown_table, number, points, share
from options import fingerprint
from tables import Json, attempts_of, by_task, success_table, theorem, updates_table, uplift_table, versus_table

from agentlab.results import figures

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results", HERE.parent / "docs"

MAIN = ("best-of-k", "no-repeat", "rosa-paper", "rosa", "textgrad", "rosa2")
"""Of the success figure: more lines than six cannot be told apart."""
SWITCH = ("textgrad", "rosa", "switch-words-first", "switch-weights-first", "rosa2")


# -- adaptation --------------------------------------------------------------------------------------------------------------------
def _lines(data: Json, names: Sequence[str]) -> dict[str, list[figures.Band]]:
    """Success bands from attempt 1 (nobody has solved anything) on."""
    lines = {m["method"]: m["within"] for m in data["methods"]}
    return {
        name: [
            (0.0, (0.0, 0.0)),
            *((b["mean"], (b["low"], b["high"])) for _, b in sorted(lines[name].items(), key=lambda kv: int(kv[0]))),
        ]
        for name in names
        if name in lines
    }


def adaptation(data: Json) -> str:
    """The page's part about adaptation."""
    n = _population(data)
    figures.success_curve(_lines(data, MAIN), _image("adaptation.png"), title=f"MiniWoB++, {Path(data['policy']).name}, {n}")
    first = data["first_attempts"]
    parts = [
        "## Does adaptation help?\n",
        f"{first['made']} first attempts, greedy, {share(first['success'])} % solved; {n}, and from each of them every method goes on: "
        f"the recorded attempt 1 is the same for all. Seeds {', '.join(map(str, data['seeds']))}. Percent; in brackets 95 % bootstrap "
        "intervals that resample whole tasks; p: exact McNemar test. Unparsable: of the replies acted on, and of all draws, those that "
        "`no_repeat` drew again included.\n",
        *_of_other_weights(data),
        _command(data),
        *_stopped(data),
        "![Solved within k attempts](img/adaptation.png)\n",
        *_comparison(data, ("best-of-k", "no-repeat", "rosa", "textgrad")),
    ]
    if text := theorem(data):
        parts += ["Error terms of `rosa2` (ROSA2 Figure 3, Theorem 4.1):\n", text, *_error_figure(data)]
    return "\n".join([*parts, "Per task:\n", by_task(data)])


def controls(data: Json) -> str:
    """All methods and controls, on as many of the pairs as there was time for."""
    return "\n".join([
        "## Every method and control\n",
        f"As above, on {_population(data)} of the same ones; seeds {', '.join(map(str, data['seeds']))}. `…-greedy`: the adaptation "
        "with greedy retries, without the sampling that suits it best.\n",
        *_of_other_weights(data),
        _command(data),
        *_stopped(data),
        *_comparison(data, ("best-of-k", "rosa")),
    ])  # fmt: skip


def _population(data: Json) -> str:
    return f"{data['population']} failing first attempts of {data['task_names']} tasks"


def _stopped(data: Json) -> list[str]:
    """Says so where the clock ended a comparison before all of its instances."""
    if data["population"] == data["population_found"]:
        return []
    return [
        f"Stopped at {data['population']} of the {data['population_found']} failing first attempts found: zero minutes pair what earlier "
        "runs of the command have left; without the limit it goes on.\n"
    ]


def _comparison(data: Json, references: Sequence[str]) -> list[str]:
    """Success, differences, corrections, switching, updates, settings."""
    parts = ["Solved within k attempts, of the failing first attempts (ROSA Table 1, ROSA2 Tables 1 and 3):\n", success_table(data)]
    for reference in references:
        if any(reference in m["against"] for m in data["methods"]):
            parts += [f"Against `{reference}`:\n", versus_table(data, reference)]
    parts += ["Corrections and attempts (ROSA2 Table 2):\n", uplift_table(data)]
    if any(m["preset"] == "switch" for m in data["methods"]):
        figures.success_curve(_lines(data, SWITCH), _image("switch.png"), title="One axis until attempt 3, then the other")
        parts += ["Switching axes (ROSA2 Figure 2a):\n", "![Switching axes](img/switch.png)\n"]
    settings = [(f"`{m['method']}`", f"`{m['preset']}`", " ".join(f"`{s}`" for s in m["sets"])) for m in data["methods"]]
    parts += ["The updates:\n", updates_table(data)] if any(m["updates"] for m in data["methods"]) else []
    return [*parts, "Settings:\n", markdown_table(("method", "preset", "set"), settings)]


def _error_figure(data: Json) -> list[str]:
    """ROSA2 Figure 3: how the error terms go from attempt to attempt."""
    from matplotlib.figure import Figure

    terms = data["error_terms"]["by_attempt"]
    t = [int(k) for k in terms]
    figure = Figure(figsize=(8.4, 2.8), dpi=150, layout="constrained")
    pairs = (("‖R‖", "residual", "residual_refined"), ("‖Δθ‖²", "delta_norm2", "delta_norm2_refined"), ("‖Δx‖²", "distance", None))
    for axes, (title, old, new) in zip(figure.subplots(1, 3), pairs, strict=True):
        axes.plot(t, [e[old] for e in terms.values()], marker="o", color=figures.COLOURS[0], label="old context")
        if new:
            axes.plot(t, [e[new] for e in terms.values()], marker="o", color=figures.COLOURS[1], label="refined")
            axes.legend(frameon=False, fontsize=8)
        axes.set(title=title, xlabel="after attempt", xticks=t)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(_image("error_terms.png"))
    return ["![Error terms](img/error_terms.png)\n"]


# -- the other results -------------------------------------------------------------------------------------------------------------
def _of_other_weights(data: Json) -> list[str]:
    """Says so where a result was measured on weights that the bundled policy no longer has."""
    now = fingerprint(data["policy"])
    if data["weights"] == now:
        return []
    return [
        f"**Measured on earlier weights of this policy** (`{data['weights']}`; the bundled ones are `{now}`, trained further, on more "
        "tasks): not repeated on them yet.\n"
    ]


def sweep(data: Json, title: str = "The sweep") -> str:
    """A sweep that chose settings."""
    ks = attempts_of(data)
    rows = [
        (
            f"`{m['method']}`", " ".join(f"`{s}`" for s in m["sets"]),
            *(share(m["within"][k]["mean"]) for k in ks), share(m["area"]), share(m["unparsable"]),
            share(m.get("unparsable_draws")),
        )
        for m in sorted(data["methods"], key=lambda m: -m["area"])
    ]  # fmt: skip
    return "\n".join([
        f"## {title}\n",
        f"{data['population']} failing first attempts, seeds {', '.join(map(str, data['seeds']))}, which no other figure "
        "uses. Percent solved within k; mean: over k, what settings are chosen by.\n",
        *_of_other_weights(data),
        _command(data),
        markdown_table(("setting", "set", *(f"≤{k}" for k in ks), "mean", "unparsable", "of draws"), rows),
    ])  # fmt: skip


def earlier_sweep(data: Json) -> str:
    """The one that chose β and which tokens, on few pairs."""
    return sweep(data, "An earlier sweep of the weights' settings")


def transfer(data: Json) -> str:
    """Help and harm at other instances."""
    rows = [
        (
            f"`{m['method']}`", str(m["n"]), share(m["frozen"]), share(m["adapted"]), points(m),
            f"{m['helped']}/{m['of_failed']}", f"{m['hurt']}/{m['of_solved']}",
        )
        for m in data["methods"]
    ]  # fmt: skip
    return "\n".join([
        "## Transfer to other instances\n",
        "One update from one failed attempt, then one greedy attempt at another instance of the same task, paired with the frozen "
        "policy's.\n",
        _command(data),
        markdown_table(("method", "n", "frozen", "adapted", "difference", "helped", "hurt"), rows),
    ])  # fmt: skip


def costs(data: Json) -> str:
    """Seconds and memory per method (ROSA2 Table 4)."""
    rows = [
        (
            f"`{m['method']}`", str(m["attempts"]), *(number(m["seconds"][p], 3) for p in ("acting", "environment", "words", "weights")),
            share(m["words_of_acting"]), share(m["weights_of_acting"]), number(m["adapter_mb"]), f"{m['peak_mb'].get('rss', 0):.0f}",
        )
        for m in data["methods"]
    ]  # fmt: skip
    header = (
        "method",
        "attempts",
        "acting s",
        "environment s",
        "words s",
        "weights s",
        "words % of acting",
        "weights % of acting",
        "adapter MB",
        "peak MB",
    )
    note = (
        "Mean seconds per attempt, one session at a time; the shares are of attempts that were learned from; peak: the process "
        "without the browser.\n"
    )
    return "\n".join(
        ["## Time and memory on the bundled policy (ROSA2 Table 4)\n", note, _command(data), markdown_table(header, rows)]
    )


def rosa_cost(data: Json) -> str:
    """The cost of an update at the head's real shape."""
    s = data["shape"]
    rows = []
    for cost in data["costs"]:
        same = {c["method"]: c for c in data["costs"] if c["tokens"] == cost["tokens"]}
        ratios = [number(cost["cpu_s"] / same[m]["cpu_s"], 3) if m in same else "–" for m in ("dual", "generate")]
        rows.append(
            (
                str(cost["tokens"]),
                f"`{cost['method']}`",
                number(cost["seconds"]),
                number(cost["cpu_s"]),
                *ratios,
                f"{cost['extra_mb']:.0f}",
            )
        )
    return "\n".join([
        "## The cost of one update\n",
        f"d={s['hidden']}, V={s['vocab']}, {s['layers']} layers of random weights, {s['device']}, {s['threads']} threads. Extra MB: rise "
        "of the peak above model and H. Seconds of a CG run or of generating may be scaled up from a part of it (see the JSON).\n",
        _command(data),
        markdown_table(("T", "method", "s", "CPU s", "/ dual", "/ generate", "extra MB"), rows),
        *([_update_memory(data["memory"])] if "memory" in data else []),
    ])  # fmt: skip


def _update_memory(data: Json) -> str:
    """The memory of whole updates."""
    s = data["shape"]
    rows = [
        (str(m["tokens"]), f"`{m['setting']}`", str(m["rank"]), f"{m['adapter_mb']:.0f}", f"{m['extra_mb']:.0f}")
        for m in data["updates"]
    ]
    return "\n".join([
        f"\nThe memory of whole updates of the preset `rosa` (and at rank 1), after-check included, at d={s['hidden']}, V={s['vocab']}, "
        f"{s['device']}. Extra MB: rise of the peak above W, H and y; a second update's includes the first one's adapter.\n",
        _command(data),
        markdown_table(("T", "update", "rank", "adapter MB", "extra MB"), rows),
    ])  # fmt: skip


def _command(data: Json) -> str:
    return f"```sh\n{data['command']}\n```\n" if "command" in data else ""


def _image(name: str) -> Path:
    folder = DOCS / "img"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / name


PARTS: tuple[tuple[str, Callable[[Json], str]], ...] = (
    ("adaptation", adaptation), ("adaptation-controls", controls), ("sweep", sweep), ("sweep-weights", earlier_sweep),
    ("transfer", transfer), ("costs", costs), ("rosa_cost", rosa_cost),
)  # fmt: skip


def main() -> None:
    """Write the page from what results there are."""
    parts = ["# Measured claims\n\nMade by `python benchmarks/report.py` from `benchmarks/results/*.json`; do not edit by hand.\n"]
    for name, write in PARTS:
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(write(json.loads(path.read_text(encoding="utf-8"))))
    (DOCS / "results.md").write_text("\n".join(parts), encoding="utf-8")
    print(DOCS / "results.md")


if __name__ == "__main__":
    main()

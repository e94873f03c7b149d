"""Does adaptation help?  Every method on the same failing first attempts, paired.

    python benchmarks/adaptation.py --seeds 1001,1002,1003 --pairs 300 --minutes 35
    python benchmarks/adaptation.py --tuned benchmarks/results/tuned.json      # each method at the settings the sweep chose
    python benchmarks/adaptation.py --methods best-of-k,rosa,rosa2             # some of them

Writes ``benchmarks/results/adaptation.json``; ``python benchmarks/report.py`` makes tables and figures of it.  The same command
continues a stopped run.  Settings must have been fixed on other seeds (``benchmarks/sweep.py`` uses 2001 and on).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from options import CENTRE, GREEDY, RESULTS, Method, arguments, command_line, setup_of
from paired import Outcome, compare, save, table
from pool import reported

from agentlab.disk.row import Row

METHODS = [
    Method("greedy", "none", attempts=2),
    Method("best-of-k", "best-of-k"),
    Method("no-repeat", "no-repeat"),
    Method("slot", "slot"),
    Method("rl", "rl"),
    Method("rosa-paper", "rosa-paper"),
    Method("rosa-greedy", "rosa", CENTRE),
    Method("rosa", "rosa"),
    Method("rosa-replay", "rosa", ("adapt.weights.replay=true",)),
    Method("reflexion", "reflexion"),
    Method("textgrad-greedy", "textgrad", GREEDY),
    Method("textgrad", "textgrad"),
    Method("rosa2-greedy", "rosa2", ("adapt.score_under=refined", *GREEDY)),
    Method("rosa2", "rosa2", ("adapt.score_under=refined",)),
    Method("switch-words-first", "switch", ("adapt.switch_first=words",)),
    Method("switch-weights-first", "switch", ("adapt.switch_first=weights",)),
]
REFERENCES = ("best-of-k", "no-repeat", "rosa", "textgrad")
LIKE = {
    "rosa-replay": "rosa",
    "rosa-greedy": "rosa",
    "rosa2-greedy": "rosa2",
    "textgrad-greedy": "textgrad",
    "switch-words-first": "rosa2",
    "switch-weights-first": "rosa2",
}
"""Methods at the settings that were chosen for another one."""


def tuned(methods: list[Method], path: Path | None) -> list[Method]:
    """The methods at the settings of a sweep: ``{"preset": ["key=value", …]}``; a method's own settings come last and win."""
    if path is None:
        return methods
    chosen = json.loads(path.read_text(encoding="utf-8"))["chosen"]
    return [Method(m.name, m.preset, (*chosen.get(LIKE.get(m.name, m.name), ()), *m.sets), m.attempts) for m in methods]


def error_terms(rows: list[Row], attempts: int) -> dict[str, Any]:
    """ROSA2 Figure 3 and Theorem 4.1: per attempt ‖Δθ‖², ‖R‖ under the old and the new context, ‖Δx‖²; and how often it held."""
    made = [r for r in rows if (u := _numbers(r)).get("refined", {}).get("residual") is not None and u.get("residual_before")]
    by_attempt = {}
    for t in range(1, attempts):
        these = [r for r in made if r.attempt == t]
        if these:
            by_attempt[str(t)] = {
                "n": len(these),
                "delta_norm2": _median(_numbers(r)["delta_norm2"] for r in these),
                "delta_norm2_refined": _median(_numbers(r)["refined"]["delta_norm2"] for r in these),
                "residual": _median(_numbers(r)["residual_before_probability"] for r in these),
                "residual_refined": _median(_numbers(r)["refined"]["residual_probability"] for r in these),
                "distance": _median(r.words.distance for r in these if r.words is not None),
            }
    held = {
        "n": len(made),
        "residual_smaller": sum(
            _numbers(r)["refined"]["residual_probability"] < _numbers(r)["residual_before_probability"] for r in made
        ),
        "step_smaller": sum(_numbers(r)["refined"]["delta_norm2"] < _numbers(r)["delta_norm2"] for r in made),
        "failed": sum("error" in _numbers(r).get("refined", {}) for r in rows),
    }
    return {"by_attempt": by_attempt, "theorem": held}


def _numbers(row: Row) -> dict[str, Any]:
    """What the attempt's update recorded; nothing if there was none."""
    return row.update.numbers if row.update is not None else {}


def _median(values: Any) -> float | None:
    numbers = sorted(float(v) for v in values)
    return numbers[len(numbers) // 2] if numbers else None


def by_task(outcomes: list[Outcome], attempts: int) -> dict[str, dict[str, list[int]]]:
    """Task name -> method -> [solved within ``attempts``, failing first attempts]."""
    names = np.array(outcomes[0].names)
    return {
        str(name): {o.method.name: [int(o.within(attempts)[names == name].sum()), int((names == name).sum())] for o in outcomes}
        for name in np.unique(names)
    }


def result(outcomes: list[Outcome], facts: dict[str, Any], attempts: int) -> dict[str, Any]:
    """Everything that the tables and figures show."""
    by_name = {o.method.name: o for o in outcomes}
    return {
        "command": command_line(),
        **facts,
        "methods": table(outcomes, REFERENCES, attempts),
        "error_terms": error_terms(by_name["rosa2"].rows, attempts) if "rosa2" in by_name else None,
        "by_task": by_task(outcomes, attempts),
    }


def main() -> None:
    """Run, and write the result."""
    assert __doc__ is not None
    parser = arguments(__doc__, name="adaptation", seeds="1001,1002,1003", pairs=300)
    parser.add_argument("--methods", help=f"comma-separated, of {', '.join(m.name for m in METHODS)}; default all")
    parser.add_argument("--tuned", type=Path, help="settings chosen by benchmarks/sweep.py")
    args = parser.parse_args()
    chosen = args.methods.split(",") if args.methods else [m.name for m in METHODS]
    methods = tuned([m for m in METHODS if m.name in chosen], args.tuned)
    setup = setup_of(args)
    with reported():
        outcomes, facts = compare(setup, methods)
    save(RESULTS / f"{args.name}.json", result(outcomes, facts, setup.attempts))


if __name__ == "__main__":
    main()

"""Which settings?  One factor at a time around greedy retries, on seeds that no reported figure uses.

    python benchmarks/sweep.py --pairs 60 --minutes 35                         # every group
    python benchmarks/sweep.py --groups default,sampling,beta,rank --pairs 100
    python benchmarks/sweep.py --groups damping,tokens --base adapt.weights.beta=0.25    # a second round, around a new centre

Writes ``benchmarks/results/<name>.json``, and ``tuned.json`` with the best setting of each method for ``adaptation.py --tuned`` and
for the presets in ``agentlab/run/presets.py``.  Best: the highest mean of success within 2, 3, 4 and 5
attempts; ties go to the earlier line, and a default is left only for a setting that is better on these pairs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from options import CENTRE, GREEDY, RESULTS, Method, arguments, command_line, setup_of
from paired import compare, save, table
from pool import reported


def _weights(preset: str, name: str, *sets: str) -> Method:
    full = [s if s.startswith(("sampling.", "adapt.")) else f"adapt.weights.{s}" for s in sets]
    return Method(name, preset, (*_centre_unless(preset, full), *full))


def _centre_unless(preset: str, sets: Sequence[str]) -> list[str]:
    """Lines start from greedy retries and β = 1, whatever the presets have been given since: what ``sets`` leaves unsaid of that."""
    centre = CENTRE if preset == "rosa" else GREEDY
    return [s for s in centre if not any(other.partition("=")[0] == s.partition("=")[0] for other in sets)]


def _sampled(preset: str, *temperatures: float) -> list[Method]:
    frozen = preset in {"best-of-k", "no-repeat"}
    sets = [f"sampling.temperature={t}" for t in temperatures]
    return [Method(f"{preset}-T{s.partition('=')[2]}", preset, (*([] if frozen else _centre_unless(preset, [s])), s)) for s in sets]


NO_REPEAT = "sampling.no_repeat=true"
CRITIQUE = "adapt.words.credit=critique"
NUCLEUS = "sampling.top_p=0.9"
NUCLEUS_NO_REPEAT = ("sampling.temperature=1.0", NUCLEUS, NO_REPEAT)
GROUPS: dict[str, list[Method]] = {
    "default": [
        *(_weights(preset, preset) for preset in ("rosa", "rosa2", "textgrad", "rosa-paper")),
    ],
    "sampling": _sampled("best-of-k", 0.5, 0.7, 1.0, 1.5, 2.0),
    "no-repeat": _sampled("no-repeat", 0.0, 0.7, 1.0, 1.5, 2.0),
    "beta": [_weights("rosa", f"beta-{b}", f"beta={b}") for b in (1.0, 0.5, 0.25, 0.1, 0.05)],
    "replay": [
        *(_weights("rosa", f"replay-beta-{b}", "replay=true", f"beta={b}") for b in (1.0, 0.5, 0.25)),
        _weights("rosa", "replay-critique", "replay=true", "beta=0.5", CRITIQUE),
        _weights("rosa2", "rosa2-replay", "replay=true", "beta=0.5"),
        _weights("rosa2", "rosa2-replay-critique", "replay=true", "beta=0.5", CRITIQUE),
    ],
    "rank": [_weights("rosa", f"rank-{r}", f"rank={r}") for r in (1, 2, 4, 8, 16)],
    "a_init": [_weights("rosa", f"A-random-r{r}", "a_init=random", f"rank={r}") for r in (1, 8)],
    "tokens": [
        _weights("rosa", "tokens-all", "tokens=all"),
        _weights("rosa", "tokens-below-0.9", "p_max=0.9"),
        _weights("rosa", "tokens-below-0.999", "p_max=0.999"),
        _weights("rosa", "tokens-coordinates", "tokens=coordinates"),
        _weights("rosa", "no-anchor", "anchor=false"),
        _weights("rosa", "no-fallback", "fallback_tokens=0"),
    ],
    "linearization": [
        _weights("rosa", "probability", "linearization=probability"),
        _weights("rosa", "probability-all", "linearization=probability", "tokens=all"),
    ],
    "damping": [_weights("rosa", f"damping-{d}", f"damping={d}") for d in (0.0, 0.01, 1.0)],
    "mode": [_weights("rosa", "hidden", "mode=hidden"), _weights("rosa", "hidden-beta-0.1", "mode=hidden", "beta=0.1")],
    "mode-temperature": [
        _weights("rosa", "hidden-no-repeat-T1.0", "mode=hidden", "sampling.temperature=1.0", NO_REPEAT),
        _weights("rosa", "hidden-T1.0", "mode=hidden", "sampling.temperature=1.0"),
        _weights("rosa2", "rosa2-hidden", "mode=hidden"),
        _weights("rosa2", "rosa2-hidden-no-repeat-T1.0", "mode=hidden", "sampling.temperature=1.0", NO_REPEAT),
    ],
    # A judge needs a model that can write, which the bundled policy cannot: the credit read off the evidence stands for it.
    "credit": [
        _weights("rosa", "rosa-critique", CRITIQUE),
        _weights("rosa2", "rosa2-critique", CRITIQUE),
    ],
    "temperature": [
        *(_weights("rosa", f"rosa-T{t}", f"sampling.temperature={t}") for t in (0.5, 1.0)),
        *(_weights("rosa", f"rosa-no-repeat-T{t}", f"sampling.temperature={t}", NO_REPEAT) for t in (0.0, 0.5, 0.7, 1.0, 1.5)),
        *(_weights(m, f"{m}-no-repeat-beta-2.0", "beta=2.0", "sampling.temperature=0.7", NO_REPEAT) for m in ("rosa", "rosa2")),
        *(
            _weights(m, f"{m}-replay-no-repeat-T1.0", "replay=true", "sampling.temperature=1.0", NO_REPEAT)
            for m in ("rosa", "rosa2")
        ),
    ],
    "words-temperature": [
        *_sampled("textgrad", 0.5, 1.0),
        *_sampled("rosa2", 0.5, 1.0),
        *(_weights("textgrad", f"textgrad-no-repeat-T{t}", f"sampling.temperature={t}", NO_REPEAT) for t in (0.0, 0.7, 1.0)),
        *(_weights("rosa2", f"rosa2-no-repeat-T{t}", f"sampling.temperature={t}", NO_REPEAT) for t in (0.0, 0.5, 0.7, 1.0)),
        *_sampled("reflexion", 0.5, 1.0),
    ],
    # Sampled from the nucleus: the tail of the distribution is where replies stop being parsable.
    "nucleus": [
        Method("best-of-k-T1.0-p0.9", "best-of-k", ("sampling.temperature=1.0", NUCLEUS)),
        Method("no-repeat-T1.0-p0.9", "no-repeat", ("sampling.temperature=1.0", NUCLEUS)),
        *(_weights(m, f"{m}-no-repeat-T1.0-p0.9", *NUCLEUS_NO_REPEAT) for m in ("rosa", "rosa2", "textgrad")),
    ],
    "slot": [_weights("slot", f"slot-lr{lr}", f"slot_lr={lr}") for lr in (0.003, 0.01, 0.03, 0.1)],
    "rl": [_weights("rl", f"rl-lr{lr}", f"lr={lr}") for lr in (0.001, 0.003, 0.01, 0.03, 0.1)],
    "paper": [_weights("rosa-paper", f"rosa-paper-beta-{b}", f"beta={b}") for b in (1.0, 0.1)],
}


def best(lines: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The best setting of each preset; defaults come first, so that a tie leaves them."""
    chosen: dict[str, dict[str, Any]] = {}
    for line in sorted(lines, key=lambda line: len(line["sets"])):
        now = chosen.get(line["preset"])
        if now is None or line["area"] > now["area"]:
            chosen[line["preset"]] = line
    return {name: line["sets"] for name, line in chosen.items()}


def main() -> None:
    """Run, and write the results."""
    assert __doc__ is not None
    parser = arguments(__doc__, name="sweep", seeds="2001,2002", pairs=60)
    parser.add_argument("--groups", help=f"comma-separated, of {', '.join(GROUPS)}; default all")
    parser.add_argument("--methods", help="comma-separated names of lines, of those groups; default all")
    parser.add_argument("--base", default="", help="comma-separated settings that all rosa lines start from")
    args = parser.parse_args()
    base = tuple(s for s in args.base.split(",") if s)
    chosen = args.groups.split(",") if args.groups else list(GROUPS)
    wanted = set(args.methods.split(",")) if args.methods else None
    methods = [method for group in chosen for method in GROUPS[group] if wanted is None or method.name in wanted]
    # Lines of the second round have names of their own, and with them run directories.
    mark = "".join(f"@{s.rpartition('.')[2]}" for s in base)
    methods = [Method(m.name + mark, m.preset, (*base, *m.sets)) if m.preset in {"rosa", "rosa2"} else m for m in methods]
    setup = setup_of(args)
    with reported():
        outcomes, facts = compare(setup, methods)
    lines = table(outcomes, [f"rosa{mark}", "rosa"], setup.attempts)
    save(RESULTS / f"{args.name}.json", {"command": command_line(), **facts, "methods": lines})
    path = RESULTS / "tuned.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    earlier = old["chosen"] if old.get("weights") == facts["weights"] else {}  # groups may be swept one after the other
    save(path, {"command": command_line(), "weights": facts["weights"], "n": facts["population"], "chosen": earlier | best(lines)})


if __name__ == "__main__":
    main()

"""Which ROSA?  One factor at a time around the default, on seeds that no reported figure uses.

    python benchmarks/sweep.py --seeds 2001 --limit 350
    python benchmarks/sweep.py --groups beta,rank        # some of the factors

Writes ``benchmarks/results/sweep.{json,md}``.  The presets of ``policies/adapt_config.py`` are chosen from its table; temperature
and the frozen opponents are tuned here too, so that each method of ``benchmarks/adaptation.py`` runs at its own best.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from paired import Method, Setup, compare, markdown, save, table

RESULTS = Path(__file__).parent / "results"


def _rosa(name: str, *sets: str) -> Method:
    return Method(name, "rosa", tuple(f"adapt.weights.{s}" if not s.startswith("sampling") else s for s in sets))


def _sampled(preset: str, temperature: float) -> Method:
    return Method(f"{preset}-T{temperature}", preset, (f"sampling.temperature={temperature}",))


GROUPS: dict[str, list[Method]] = {
    "default": [Method("rosa", "rosa")],
    "sampling": [_sampled("best-of-k", t) for t in (0.5, 0.7, 1.0, 1.5)],
    "no-repeat": [_sampled("no-repeat", t) for t in (0.7, 1.0, 1.5)],
    "beta": [_rosa(f"beta-{b}", f"beta={b}") for b in (1.0, 0.25, 0.1)],
    "rank": [_rosa(f"rank-{r}", f"rank={r}") for r in (1, 2, 4, 8, 16)],
    "a_init": [_rosa(f"A-{a}-r{r}", f"a_init={a}", f"rank={r}") for a in ("random", "rows") for r in (1, 8)],
    "tokens": [_rosa("tokens-all", "tokens=all"), _rosa("tokens-undecided-0.9", "p_max=0.9"), _rosa("no-anchor", "anchor=false")],
    "linearization": [_rosa("probability", "linearization=probability")],
    "granularity": [_rosa("sequence", "granularity=sequence")],
    "damping": [_rosa(f"damping-{d}", f"damping={d}") for d in (0.0, 0.01, 1.0)],
    "mode": [_rosa("hidden", "mode=hidden")],
    "decay": [_rosa("decay-0.5", "decay=0.5")],
    "credit": [
        Method("rosa-critique", "rosa", ("adapt.words.credit=critique",)),
        Method("rosa2-critique", "rosa2", ("adapt.words.credit=critique",)),
    ],
    "temperature": [_rosa(f"rosa-T{t}", f"sampling.temperature={t}") for t in (0.5, 1.0)],
    "words": [Method("textgrad", "textgrad"), Method("rosa2", "rosa2")],
    "words-temperature": [
        *(Method(f"textgrad-T{t}", "textgrad", (f"sampling.temperature={t}",)) for t in (0.5, 1.0)),
        *(Method(f"rosa2-T{t}", "rosa2", (f"sampling.temperature={t}",)) for t in (0.5, 1.0)),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="ui-tars-nano")
    parser.add_argument("--seeds", default="2001")
    parser.add_argument("--limit", type=int, default=350, help="instances per seed")
    parser.add_argument("--attempts", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--groups", help=f"comma-separated, of {', '.join(GROUPS)}; default all")
    parser.add_argument("--work", type=Path, default=Path("runs/sweep"))
    parser.add_argument("--name", default="sweep")
    args = parser.parse_args()
    chosen = args.groups.split(",") if args.groups else list(GROUPS)
    methods = [method for group in chosen for method in GROUPS[group]]
    seeds = tuple(int(s) for s in args.seeds.split(","))
    outcomes, facts = compare(Setup(args.policy, args.attempts, seeds, args.limit, args.work, args.workers), methods)
    lines = table(outcomes, ["rosa"], args.attempts)
    command = "python benchmarks/sweep.py " + " ".join(sys.argv[1:])
    save(RESULTS / f"{args.name}.json", {"command": command, **facts, "seeds": seeds, "methods": lines})
    text = f"<!-- {command} -->\n" + markdown(lines, args.attempts, "rosa")
    (RESULTS / f"{args.name}.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

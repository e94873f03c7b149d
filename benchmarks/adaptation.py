"""Does adaptation help?  Every preset on the same failing first attempts, paired.

    python benchmarks/adaptation.py --seeds 1001,1002,1003 --limit 350

Writes ``benchmarks/results/adaptation.{json,md,png}``.  Settings are the presets' own, fixed beforehand on other seeds
(``benchmarks/sweep.py``); the seeds here must not have been used there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from paired import Method, Setup, compare, figure, markdown, save, table

RESULTS = Path(__file__).parent / "results"

METHODS = [
    Method("greedy", "none"),
    Method("sampling", "best-of-k"),
    Method("no-repeat", "no-repeat"),
    Method("rl", "rl"),
    Method("slot", "slot"),
    Method("rosa-paper", "rosa-paper"),
    Method("rosa", "rosa"),
    Method("reflexion", "reflexion"),
    Method("textgrad", "textgrad"),
    Method("rosa2", "rosa2"),
    Method("switch-words-first", "switch", ("adapt.switch_first=words",)),
    Method("switch-weights-first", "switch", ("adapt.switch_first=weights",)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="ui-tars-nano")
    parser.add_argument("--seeds", default="1001,1002,1003")
    parser.add_argument("--limit", type=int, default=350, help="instances per seed")
    parser.add_argument("--attempts", type=int, default=5)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--methods", help="comma-separated names; default all")
    parser.add_argument("--work", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--name", default="adaptation")
    args = parser.parse_args()
    chosen = args.methods.split(",") if args.methods else [m.name for m in METHODS]
    methods = [m for m in METHODS if m.name in chosen]
    seeds = tuple(int(s) for s in args.seeds.split(","))
    setup = Setup(args.policy, args.attempts, seeds, args.limit, args.work, args.workers)
    outcomes, facts = compare(setup, methods)
    lines = table(outcomes, ["sampling", "no-repeat", "rosa", "textgrad"], args.attempts)
    command = "python benchmarks/adaptation.py " + " ".join(sys.argv[1:])
    save(RESULTS / f"{args.name}.json", {"command": command, **facts, "seeds": seeds, "methods": lines})
    text = f"<!-- {command} -->\n" + markdown(lines, args.attempts, "sampling")
    (RESULTS / f"{args.name}.md").write_text(text, encoding="utf-8")
    figure(outcomes, args.attempts, RESULTS / f"{args.name}.png", f"MiniWoB++, {args.policy}, n = {facts['population']}")
    print(text)


if __name__ == "__main__":
    main()

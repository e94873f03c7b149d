"""The memory of a whole update as a session makes it: pass, solve, after-check, new adapter (part of :mod:`rosa_cost`)."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from watch import Watch

# What is measured -> changes to ROSA's default settings, and whether it goes on top of an earlier update of the full rank.
SETTINGS: dict[str, tuple[dict[str, Any], bool]] = {
    "first": ({}, False),
    "second": ({}, True),
    "first-rank-1": ({"rank": 1}, False),
    "second-rank-1": ({"rank": 1}, True),
}
EARLIER = 512  # tokens of the earlier update: more than the adapter has directions, so that it has its full size


@dataclass
class Memory:
    """One measurement.  ``extra_mb``: rise of the peak above what W, H and y take; an earlier update's adapter counts as extra."""

    setting: str
    tokens: int
    seconds: float
    cpu_s: float
    extra_mb: float
    adapter_mb: float
    rank: int
    halvings: int
    accepted: bool


def measure(args: argparse.Namespace, setting: str, tokens: int) -> Memory:
    """One update of ROSA at T = ``tokens`` on random weights."""
    import torch

    from policies.learner import HeadLearner
    from policies.rosa.config import RosaConfig

    changes, on_top = SETTINGS[setting]
    g = torch.Generator(device=args.device).manual_seed(0)
    dtype = torch.bfloat16 if args.device == "cuda" else torch.float32
    W = torch.empty(args.vocab, args.hidden, device=args.device, dtype=dtype).normal_(0, 0.06, generator=g)

    def attempt(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        y = torch.randint(0, len(W), (n,), generator=g, device=args.device)
        return torch.randn(n, args.hidden, generator=g, device=args.device, dtype=dtype) * 0.3 + 4 * W[y], y

    earlier, now = attempt(EARLIER), attempt(tokens)
    warm = HeadLearner(RosaConfig(), W[:1000], 0)
    warm.record(now[0][:8], torch.arange(8), 0)
    warm.update([-1.0])  # libraries are up
    learner = HeadLearner(RosaConfig(**changes), W, 0)
    with Watch(args.device) as whole:
        if on_top:
            learner.record(*earlier, 0)
            if not learner.update([-1.0]).accepted:
                raise SystemExit("The earlier update was refused: there is nothing to go on top of.")
        learner.record(*now, 0)
        with Watch(args.device) as last:
            update = learner.update([-1.0])
    said = update.numbers
    mb = float(said["adapter_mb"])
    return Memory(setting, tokens, last.seconds, last.cpu_s, whole.extra_mb, mb, said["rank"], said["halvings"], update.accepted)


def table(data: dict[str, Any]) -> str:
    """One line per measurement."""
    lines = [f"{'T':>6} {'update':<14} {'CPU s':>8} {'rank':>5} {'adapter MB':>11} {'extra MB':>9}"]
    for m in data["updates"]:
        lines.append(
            f"{m['tokens']:>6} {m['setting']:<14} {m['cpu_s']:>8.1f} {m['rank']:>5} {m['adapter_mb']:>11.0f} {m['extra_mb']:>9.0f}"
        )
    return "\n".join(lines)

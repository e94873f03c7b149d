"""One update from one attempt: target, linearised step, the check afterwards, and what is recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from policies.adapters import adapter_class
from policies.adapters.base import Delta, HeadAdapter, Kernel, norm2
from policies.head_pass import HeadPass, Moments
from policies.methods.effect import Effect, Learned, acting, check_finite, effect
from policies.methods.episode import Episode
from policies.rosa.cg import cg
from policies.rosa.config import RosaConfig
from policies.rosa.solve import Problem, Solution, dual
from policies.rosa.target import Target, probability_gap, replayed_from, target_of

SOLVERS: dict[str, tuple[Callable[[Problem], Solution], Kernel]] = {"dual": (dual, "full"), "cg": (cg, "diagonal")}
"""Each solver, and how much of K̂ it needs of the pass over the head."""


def rosa_step(head: HeadPass, adapter: HeadAdapter | None, episode: Episode, config: RosaConfig, *, seed: int) -> Learned:
    """One ROSA update (ROSA2 Alg. 1, line 17); no adapter if none was better.

    Raises:
        AdaptationError: NaN or Inf anywhere, or an option the attempt cannot serve.
    """
    clock = [time.perf_counter()]
    kind, (solver, kernel) = adapter_class(config.mode), SOLVERS[config.solver]
    theta, free = adapter or kind.zero(config, head, seed), kind.free(config)
    before = head.moments(acting(theta), **kind.needs(theta, free, kernel))
    clock.append(time.perf_counter())
    target = target_of(episode, before.margin, config)  # Eq. 3
    numbers = _counts(head, episode, target) | {"beta": config.beta, "linearization": config.linearization}
    if not numbers["moved_tokens"]:
        return Learned(None, {**numbers, "reason": "no token has a reward to move it"})
    theta = kind.with_room(theta, head, target.keep, target.moving, config)
    solution = solver(Problem(head, theta, free, before, target, config))  # Eq. 4-7
    before = replace(before, gram=None, gB=None, gW=None)  # T×T numbers that the check has no use for
    check_finite(solution.delta)
    clock.append(time.perf_counter())
    checked = _checked(head, target, before, theta, solution.delta, config)
    clock.append(time.perf_counter())
    numbers |= {
        "rank": checked.adapter.rank,
        "solver": config.solver,
        "lambda": solution.lam,
        "iterations": solution.iterations,
        "halvings": checked.halvings,
        **asdict(checked.effect),
        **checked.residuals,
        **{f"{name}_seconds": round(b - a, 6) for name, a, b in zip(("pass", "solve", "check"), clock, clock[1:], strict=False)},
    }
    if config.check and not checked.helps:
        return Learned(None, {**numbers, "reason": f"no step length down to 2^-{checked.halvings} lowered the residual"})
    return Learned(checked.adapter, numbers, replayed_from(episode, target, checked.after) if config.replay else None)


def _counts(head: HeadPass, episode: Episode, target: Target) -> dict[str, Any]:
    """How many tokens the update saw and moves; ``fallback``: they are the least certain ones, none was undecided."""
    new = target.moving[: len(target.moving) - episode.older]
    return {
        "T": head.T - episode.older,
        "replayed": episode.older,
        "equations": len(target.keep),
        "moved_tokens": int(new.sum()),
        "fallback": target.fallback,
    }


@dataclass(frozen=True)
class Checked:
    """A step of one length, recomputed on H: the adapter, the log-odds [T] under it, ‖R‖ before and after."""

    adapter: HeadAdapter
    effect: Effect
    after: Tensor
    residuals: dict[str, float]
    halvings: int

    @property
    def helps(self) -> bool:
        """‖R‖ has fallen."""
        return self.residuals["residual_after"] < self.residuals["residual_before"]


def _checked(head: HeadPass, target: Target, before: Moments, old: HeadAdapter, delta: Delta, config: RosaConfig) -> Checked:
    """θ + Δθ/2ⁿ for the smallest n ≤ ``max_halvings`` at which ‖R‖ has fallen (else the last one tried)."""
    size, halvings, own = norm2(delta), 0, old.theta
    theta = old.added_to({name: change.to(own[name].dtype) for name, change in delta.items()})  # in Δθ's place
    while True:
        new = old.at(theta).truncated(config.max_rank)
        done, after = effect(head, before, old, new, target.keep[target.moving], 0.25**halvings * size)
        checked = Checked(new, done, after, _residuals(target, before.margin, after), halvings)
        if not config.check or checked.helps or halvings == config.max_halvings:
            return checked
        del new, checked  # before the next one is made
        for change in old.added_to(theta).values():
            change.mul_(0.5)  # halfway back to θ
        halvings += 1


def _residuals(target: Target, before: Tensor, after: Tensor) -> dict[str, float]:
    """‖R‖ before and after the step: as linearised, and of the probabilities.  ``before``, ``after``: log-odds [T]."""
    m0, m1 = before[target.keep], after[target.keep]  # [T']
    return {
        "residual_before": float(target.gap(m0, m0).norm()),
        "residual_after": float(target.gap(m0, m1).norm()),
        "residual_before_probability": float(probability_gap(m0, target.shift).norm()),
        "residual_after_probability": float(probability_gap(m1, m0 + target.shift - m1).norm()),
    }

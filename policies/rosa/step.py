"""One update from one attempt: which tokens, which directions, the solve, the check afterwards, and what is recorded."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from envs.errors import AdaptationError
from policies.adapt_config import WeightAdaptConfig
from policies.head import HeadAdapter, HiddenShift, LoRAHead
from policies.head_pass import Delta, HeadPass, Moments, active, add_theta, at, norm2
from policies.rosa.basis import appended, compressed, leading_directions, random_head, rows_basis
from policies.rosa.cg import cg, cg_needs
from policies.rosa.solve import Problem, dual, needs
from policies.rosa.target import Equations, probability_gap

SOLVERS = {"dual": dual, "cg": cg}


@dataclass(frozen=True)
class Episode:
    """What is known of an attempt's T tokens besides H and y.

    Attributes:
        rewards: r_i of the token's step, [T] float64 in [-1, 1].
        steps: The step (reply) a token belongs to, [T] int64.
        coordinates: True where the token is part of a coordinate, [T] bool; None if the policy did not say.
        replayed: Tokens of earlier attempts, the last n of the T; their rewards are 0, their coordinates False.
    """

    rewards: Tensor
    steps: Tensor
    coordinates: Tensor | None = None
    replayed: Replayed | None = None


@dataclass(frozen=True)
class Replayed:
    """Where earlier updates put the tokens of earlier attempts (``replay``).

    Attributes:
        margin: The log-odds that they were to get, [n] float64.
        moved: x_i = r_i/β of their own update, [n] float64; 0 for anchors.
    """

    margin: Tensor
    moved: Tensor

    def shift(self, margin: Tensor) -> Tensor:
        """What is to be made up for at log-odds ``margin`` [n]: of a token that was moved, only a move back."""
        left = self.margin.to(margin.device) - margin
        back = left * self.moved.to(margin.device).sign() > 0
        return torch.where(back | (self.moved.to(margin.device) == 0), left, 0.0)


@dataclass(frozen=True)
class Effect:
    """What an update did to the policy, measured on the attempt's own H after the step.  Norms are over the equations."""

    residual_before: float
    residual_after: float
    residual_before_probability: float
    residual_after_probability: float
    kl_mean: float
    kl_max: float
    log_odds_shift: float
    delta_norm2: float


def equations(episode: Episode, margin: Tensor, config: WeightAdaptConfig) -> Equations:
    """The equations of an attempt.  ``margin`` [T]: log-odds of its tokens before the update.

    Raises:
        AdaptationError: ``tokens=coordinates``, but the policy did not say which tokens are coordinates.
    """
    chosen, kept, x, fallback = _targets(episode, margin, config)
    keep = kept.nonzero()[:, 0]
    x = x[keep]  # [T']
    if config.granularity == "token":
        return Equations(keep, x, None, config.linearization, fallback)
    # Chosen tokens of one reply share an equation; every anchor has its own.
    steps = episode.steps.to(margin.device)[keep]
    alone = steps.max() + 1 + torch.arange(len(keep), device=margin.device) if len(keep) else steps
    _, group = torch.where(chosen[keep], steps, alone).unique(return_inverse=True)
    member = torch.nn.functional.one_hot(group).T.double()  # [S, T']
    return Equations(keep, (member @ x) / member.sum(1), member, config.linearization, fallback)


def _targets(episode: Episode, margin: Tensor, config: WeightAdaptConfig) -> tuple[Tensor, Tensor, Tensor, bool]:
    """Which tokens the rewards move and which enter the equations [T] bool; by how much in log-odds [T]; ``fallback``."""
    rewards = episode.rewards.to(margin.device, torch.float64)  # [T]
    chosen, fallback = _chosen(episode, margin, rewards != 0, config)
    kept = torch.ones_like(chosen) if config.anchor else chosen
    x = torch.where(chosen, rewards / config.beta, 0.0)
    if episode.replayed is not None:
        old = torch.arange(len(margin), device=margin.device) >= len(margin) - len(episode.replayed.margin)
        chosen, kept = chosen & ~old, kept | old
        x[old] = episode.replayed.shift(margin[old])
    return chosen, kept, x, fallback


def remembered(episode: Episode, before: Tensor, after: Tensor, config: WeightAdaptConfig) -> Replayed:
    """What an accepted update leaves to be replayed: log-odds ``before`` and ``after`` it [T]."""
    _, _, moved, _ = _targets(episode, before, config)
    if episode.replayed is not None:
        moved[len(moved) - len(episode.replayed.moved) :] = episode.replayed.moved.to(moved.device)
    return Replayed(after.double().cpu(), moved.cpu())


def _chosen(episode: Episode, margin: Tensor, rewarded: Tensor, config: WeightAdaptConfig) -> tuple[Tensor, bool]:
    """Which tokens are to move, [T] bool, and whether these are the least certain ones for want of undecided ones."""
    if config.tokens == "all":
        return torch.ones_like(rewarded), False
    if config.tokens == "coordinates":
        if episode.coordinates is None:
            raise AdaptationError("This policy does not mark coordinate tokens.", "Use tokens=all or tokens=undecided.")
        return episode.coordinates.to(margin.device), False
    undecided = margin.sigmoid() < config.p_max
    if config.fallback_tokens == 0 or bool((undecided & rewarded).any()):
        return undecided, False
    candidates = rewarded.nonzero()[:, 0]
    least = candidates[margin[candidates].argsort(stable=True)[: config.fallback_tokens]]
    return torch.zeros_like(rewarded).index_fill(0, least, True), bool(len(least))


def initial(config: WeightAdaptConfig, head: HeadPass, seed: int) -> HeadAdapter | None:
    """The adapter of attempt 1, which changes no logit; None if its directions are still to be taken from the attempt."""
    if config.mode == "hidden":
        return HiddenShift(torch.zeros(head.d, device=head.device, dtype=head.dtype))
    if config.a_init == "random":
        return random_head(head.V, head.d, config.rank or 1, config.scale, seed=seed, like=head.H)
    return None


def free_parameters(config: WeightAdaptConfig) -> tuple[str, ...]:
    """What moves (see :mod:`policies.rosa`)."""
    if config.mode == "hidden":
        return ("delta",)
    return ("A", "B") if config.a_init == "random" else ("B",)


def with_directions(
    base: HeadAdapter | None, head: HeadPass, eq: Equations, margin: Tensor, config: WeightAdaptConfig
) -> HeadAdapter:
    """``base`` with room for this attempt: for A taken from the attempt, its new directions appended."""
    if isinstance(base, HiddenShift) or (base is not None and config.a_init == "random"):
        return base
    assert base is None or isinstance(base, LoRAHead)
    moving = (eq.shift != 0) if eq.member is None else (eq.member.T @ (eq.shift != 0).double()) > 0
    rank = min(config.rank or config.max_rank, config.max_rank)
    # Anchors are held exactly only by their own directions: those are affordable while all fit into the adapter.
    rows = eq.keep if config.rank is None and len(eq.keep) <= rank else eq.keep[moving]
    if config.a_init == "rows":
        directions = rows_basis(head.H[rows], margin[rows].argsort(), rank)
    else:
        directions = leading_directions(head.H[rows], rank)
    return appended(base, directions, head.V, config.scale, head.H)


def decayed(adapter: HeadAdapter | None, decay: float) -> HeadAdapter | None:
    """decay·θ."""
    if adapter is None or decay == 1:
        return adapter
    if isinstance(adapter, HiddenShift):
        return HiddenShift(adapter.delta * decay)
    assert isinstance(adapter, LoRAHead)
    return replace(adapter, B=adapter.B * decay)


def counts(head: HeadPass, eq: Equations, replayed: int = 0) -> dict[str, Any]:
    """How many tokens an update saw and moved; ``fallback``: they are the least certain ones, none was undecided."""
    moved = int((eq.shift[: len(eq.shift) - replayed] != 0).sum())
    return {
        "T": head.T - replayed,
        "replayed": replayed,
        "equations": len(eq.shift),
        "moved_tokens": moved,
        "fallback": eq.fallback,
    }


def check_finite(delta: Delta) -> None:
    """Raises AdaptationError if a step holds NaN or Inf."""
    for name, change in delta.items():
        if not math.isfinite(norm2({name: change})):
            raise AdaptationError(f"The solved step of {name} contains NaN or Inf.", "Raise the damping; nothing was changed.")


def effect(head: HeadPass, eq: Equations, before: Moments, old: HeadAdapter | None, new: HeadAdapter, delta_norm2: float) -> Effect:
    """Recompute the policy on H under ``new``, by the head alone, and compare it with ``old``."""
    after, kl = head.compare(active(old), new, before)
    m0, m1 = before.margin[eq.keep], after[eq.keep]
    left0, left1 = eq.shift, eq.logit(m0) + eq.shift - eq.logit(m1)
    moving = eq.shift != 0
    return Effect(
        residual_before=float(eq.gap(m0, m0).norm()),
        residual_after=float(eq.gap(m0, m1).norm()),
        residual_before_probability=float(probability_gap(eq.logit(m0), left0).norm()),
        residual_after_probability=float(probability_gap(eq.logit(m1), left1).norm()),
        kl_mean=float(kl.mean()),
        kl_max=float(kl.max()),
        log_odds_shift=float((eq.logit(m1) - eq.logit(m0))[moving].mean()),
        delta_norm2=delta_norm2,
    )


def rosa_step(
    head: HeadPass, adapter: HeadAdapter | None, episode: Episode, config: WeightAdaptConfig, *, seed: int
) -> tuple[HeadAdapter | None, dict[str, Any]]:
    """One ROSA update (ROSA2 Alg. 1, line 17): the new adapter, or None if none was better; and the numbers of the update.

    Raises:
        AdaptationError: NaN or Inf anywhere, or an option the attempt cannot serve.
    """
    clock = [time.perf_counter()]
    base = decayed(adapter, config.decay) or initial(config, head, seed)
    free = free_parameters(config)
    wanted = needs(config.mode == "lora", free, base)
    if config.solver == "cg":
        wanted |= cg_needs(config.mode == "lora", config.granularity == "token")
    before = head.moments(active(base), **wanted)
    clock.append(time.perf_counter())
    eq = equations(episode, before.margin, config)
    numbers: dict[str, Any] = counts(head, eq, 0 if episode.replayed is None else len(episode.replayed.margin))
    if not numbers["moved_tokens"]:
        return None, {**numbers, "reason": "no token has a reward to move it"}
    base = with_directions(base, head, eq, before.margin, config)
    solution = SOLVERS[config.solver](Problem(head, base, free, before, eq, config))
    before = replace(before, gram=None, gB=None, gW=None)  # T×T numbers that the check has no use for
    check_finite(solution.delta)
    clock.append(time.perf_counter())

    new, done, halvings = _checked(head, eq, before, base, solution.delta, config)
    clock.append(time.perf_counter())
    numbers |= {
        "rank": new.rank,
        "solver": config.solver,
        "lambda": solution.lam,
        "iterations": solution.iterations,
        "halvings": halvings,
        **asdict(done),
        **{f"{name}_seconds": round(b - a, 6) for name, a, b in zip(("pass", "solve", "check"), clock, clock[1:], strict=False)},
    }
    if not done.residual_after < done.residual_before:
        return None, {**numbers, "reason": f"no step length down to 2^-{halvings} lowered the residual"}
    return new, numbers


def _checked(
    head: HeadPass, eq: Equations, before: Moments, base: HeadAdapter, delta: Delta, config: WeightAdaptConfig
) -> tuple[HeadAdapter, Effect, int]:
    """θ + Δθ/2ⁿ for the smallest n ≤ ``max_halvings`` at which ‖R‖ has fallen (else the last one tried), its effect, and n."""
    size, halvings = norm2(delta), 0
    theta = add_theta(base, {name: change.to(getattr(base, name).dtype) for name, change in delta.items()})  # in Δθ's place
    while True:
        new = at(base, theta)
        if isinstance(new, LoRAHead):
            new = compressed(new, config.max_rank)
        done = effect(head, eq, before, base, new, 0.25**halvings * size)
        if done.residual_after < done.residual_before or halvings == config.max_halvings:
            return new, done, halvings
        del new  # before the next one is made
        for change in add_theta(base, theta).values():
            change.mul_(0.5)  # halfway back to θ
        halvings += 1


def refined_residual(
    head: HeadPass, adapter: HeadAdapter | None, episode: Episode, config: WeightAdaptConfig, *, seed: int
) -> dict[str, float]:
    """‖R‖ and ‖Δθ‖² that ROSA would see with these H (another context's), without moving anything (ROSA2 Theorem 4.1).

    Halved like the update itself: the two ‖Δθ‖² are compared with each other.
    """
    _, numbers = rosa_step(head, adapter, episode, config, seed=seed)
    names = {"residual": "residual_before", "residual_probability": "residual_before_probability", "delta_norm2": "delta_norm2"}
    return {short: float(numbers.get(name, 0.0)) for short, name in names.items()}

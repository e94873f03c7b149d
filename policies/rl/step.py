"""The paper's reinforcement-learning baseline (ROSA App. E.4.1): one sampled policy-gradient step on Eq. 1, same adapter.

At π_θ = π_ref the gradient of the KL term of Eq. 1 is zero, and with one sampled response the rest is REINFORCE:

    Δθ = lr · Σ_i r_i ∂log p_i/∂θ = lr · Σ_i r_i (1 − p_i) Ĵ_i

closed-form on the head, from H, y and r alone, like ROSA's own step.  Nothing is checked: that is the baseline.  With ``max_kl`` the step
is shortened until the policy has moved no further than that.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import torch

from policies.adapters import adapter_class
from policies.adapters.base import HeadAdapter, norm2
from policies.head_pass import HeadPass
from policies.methods.effect import Learned, acting, check_finite, effect
from policies.methods.episode import Episode, chosen_tokens
from policies.rl.config import RLConfig


def policy_gradient_step(head: HeadPass, adapter: HeadAdapter | None, episode: Episode, config: RLConfig, *, seed: int) -> Learned:
    """One policy-gradient update; no adapter if no token has a reward.

    Raises:
        AdaptationError: NaN or Inf anywhere.
    """
    start = time.perf_counter()
    kind = adapter_class(config.mode)
    base = adapter or kind.zero(config, head, seed)
    free = kind.free(config)
    before = head.moments(acting(base), **kind.needs(base, free))
    chosen, fallback = chosen_tokens(episode, before.margin, config)
    r = torch.where(chosen, episode.rewards.to(before.margin), 0.0)  # [T]
    moving = r.nonzero()[:, 0]
    numbers = {"T": head.T, "moved_tokens": len(moving), "fallback": fallback, "lr": config.lr}
    if not len(moving):
        return Learned(None, {**numbers, "reason": "no token has a reward to move it"})
    base = kind.with_room(base, head, torch.arange(head.T, device=head.device), r != 0, config)
    a = config.lr * r * (-before.margin).sigmoid()  # [T] lr·r_i (1 − p_i)
    delta = base.pull(head, before, a, free)
    check_finite(delta)
    scale = 1.0
    while True:
        new = base.moved(delta, scale).truncated(config.max_rank)
        done, _ = effect(head, before, base, new, moving, scale**2 * norm2(delta))
        if config.max_kl is None or done.kl_mean <= config.max_kl:
            break
        scale *= min(0.5, 0.9 * (config.max_kl / done.kl_mean) ** 0.5)  # near θ, KL is quadratic in the step
    numbers |= {"rank": new.rank, "scale": scale, **asdict(done), "step_seconds": round(time.perf_counter() - start, 6)}
    return Learned(new, numbers)

"""A control without reward, after SLOT (arXiv 2505.12392): fit one vector before the head to the text at hand, by likelihood.

SLOT takes a few AdamW steps on δ, z = W (h + δ), to raise the likelihood of the prompt.  Here the text is what the policy wrote in
the attempt, the only tokens whose H is captured.  What this control shows is what *any* small movement of the head does:
it sees neither the reward nor which tokens were wrong.
"""

from __future__ import annotations

import time
from dataclasses import asdict

import torch

from policies.adapters.base import HeadAdapter, norm2
from policies.adapters.hidden import HiddenShift
from policies.head_pass import HeadPass
from policies.methods.effect import Learned, check_finite, effect
from policies.methods.episode import Episode
from policies.slot.config import SlotConfig


def slot_step(head: HeadPass, adapter: HeadAdapter | None, episode: Episode, config: SlotConfig, *, seed: int) -> Learned:
    """``slot_steps`` AdamW steps on the mean negative log-likelihood of y; one pass over the head each.

    Raises:
        AdaptationError: NaN or Inf anywhere.
    """
    start = time.perf_counter()
    old = adapter or HiddenShift(torch.zeros(head.d, device=head.device, dtype=head.dtype))
    delta = old.theta["delta"].clone()  # [d]
    optimizer = torch.optim.AdamW([delta], lr=config.slot_lr, weight_decay=1e-8, eps=1e-5)  # SLOT's own settings
    before = first = head.moments(old, gW=True)
    for step in range(config.slot_steps):
        now = first if step == 0 else head.moments(HiddenShift(delta.clone()), gW=True)
        assert now.gW is not None
        # ∇_δ of −mean log p_i = −mean (1 − p_i) Wᵀĝ_i
        delta.grad = -((-now.margin).sigmoid()[:, None] * now.gW).mean(0).to(delta.dtype)
        optimizer.step()
    change = {"delta": delta - old.theta["delta"]}
    check_finite(change)
    new = HiddenShift(delta)
    rewarded = episode.rewards.to(before.margin).nonzero()[:, 0]
    done, _ = effect(head, before, old, new, rewarded, norm2(change))
    numbers = {"T": head.T, "rank": new.rank, "steps": config.slot_steps, "lr": config.slot_lr, **asdict(done)}
    return Learned(new, {**numbers, "step_seconds": round(time.perf_counter() - start, 6)})

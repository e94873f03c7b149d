"""A control without reward, after SLOT (arXiv 2505.12392): fit one vector before the head to the text at hand, by likelihood.

SLOT takes a few AdamW steps on δ, z = W (h + δ), to raise the likelihood of the prompt.  Here the text is what the policy wrote in
the attempt, the only tokens whose H is captured.  What this control shows is what *any* small movement of the head does:
it sees neither the reward nor which tokens were wrong.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch

from policies.adapt_config import WeightAdaptConfig
from policies.head import HeadAdapter, HiddenShift
from policies.head_pass import HeadPass, active, norm2
from policies.rosa.step import Episode, check_finite, decayed, effect, equations


def slot_step(
    head: HeadPass, adapter: HeadAdapter | None, episode: Episode, config: WeightAdaptConfig, *, seed: int
) -> tuple[HeadAdapter | None, dict[str, Any]]:
    """``slot_steps`` AdamW steps on the mean negative log-likelihood of y; one pass over the head each.

    Raises:
        AdaptationError: NaN or Inf anywhere.
    """
    start = time.perf_counter()
    old = decayed(adapter, config.decay) or HiddenShift(torch.zeros(head.d, device=head.device, dtype=head.dtype))
    assert isinstance(old, HiddenShift)
    delta = old.delta.clone()
    optimizer = torch.optim.AdamW([delta], lr=config.slot_lr, weight_decay=1e-8, eps=1e-5)  # SLOT's own settings
    before = first = head.moments(active(old), gW=True)
    for step in range(config.slot_steps):
        now = first if step == 0 else head.moments(HiddenShift(delta.clone()), gW=True)
        assert now.gW is not None
        # ∇_δ of −mean log p_i = −mean (1 − p_i) Wᵀĝ_i
        delta.grad = -((-now.margin).sigmoid()[:, None] * now.gW).mean(0).to(delta.dtype)
        optimizer.step()
    change = {"delta": delta - old.delta}
    check_finite(change)
    new = HiddenShift(delta)
    eq = equations(episode, before.margin, config.model_copy(update={"granularity": "token"}))
    numbers = {"T": head.T, "rank": 1, "steps": config.slot_steps, "lr": config.slot_lr}
    done = effect(head, eq, before, old, new, norm2(change))
    return new, {**numbers, **asdict(done), "step_seconds": round(time.perf_counter() - start, 6)}

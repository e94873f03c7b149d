"""The reinforcement-learning baseline and the reward-free control: the right gradient, taken the right number of times."""

import pytest
import torch
from synthetic import parts, peaked, weights_of

from policies.adapters.hidden import HiddenShift
from policies.adapters.lora import LoRAHead
from policies.head_pass import HeadPass
from policies.methods.episode import Episode
from policies.rl.step import policy_gradient_step
from policies.slot.step import slot_step

F64 = torch.float64


def rewards_of(T: int) -> Episode:
    return Episode(torch.where(torch.arange(T) < T // 2, -1.0, 0.5).double(), torch.arange(T) // 10)


@pytest.mark.parametrize("start", ["zero", "trained"])
def test_the_step_is_the_autograd_gradient(start: str) -> None:
    W, H, y = peaked(T=20)
    episode, config = rewards_of(20), weights_of("rl", rank=3, lr=0.05)
    old = LoRAHead.random(*W.shape, 3, config.scale, seed=4, like=W)
    if start == "trained":
        old = LoRAHead(old.A, 0.1 * torch.randn(len(W), 3, generator=torch.Generator().manual_seed(0), dtype=F64), old.scale)
    A, B = old.A.clone().requires_grad_(), old.B.clone().requires_grad_()
    logits = H @ W.T + old.scale * (H @ A.T) @ B.T
    (episode.rewards * logits.log_softmax(1).gather(1, y[:, None])[:, 0]).sum().backward()
    new, numbers = parts(policy_gradient_step(HeadPass(W, H, y), old, episode, config, seed=4))
    assert isinstance(new, LoRAHead) and A.grad is not None and B.grad is not None
    torch.testing.assert_close(new.A - old.A, 0.05 * A.grad)
    torch.testing.assert_close(new.B - old.B, 0.05 * B.grad)
    assert numbers["kl_mean"] > 0


def test_a_penalty_lowers_and_a_reward_raises() -> None:
    W, H, y = peaked(T=20)
    for reward in (-1.0, 1.0):
        episode = Episode(torch.full((20,), reward, dtype=F64), torch.zeros(20, dtype=torch.long))
        for mode in ("lora", "hidden"):
            _, numbers = parts(policy_gradient_step(HeadPass(W, H, y), None, episode, weights_of("rl", mode=mode, lr=1e-3), seed=0))
            assert numbers["log_odds_shift"] * reward > 0


def test_slot_is_adamw_on_the_likelihood() -> None:
    W, H, y = peaked(T=20)
    delta = torch.zeros(W.shape[1], dtype=F64, requires_grad=True)
    optimizer = torch.optim.AdamW([delta], lr=0.02, weight_decay=1e-8, eps=1e-5)
    for _ in range(4):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy((H + delta) @ W.T, y).backward()
        optimizer.step()
    config = weights_of("slot", slot_steps=4, slot_lr=0.02)
    new, numbers = parts(slot_step(HeadPass(W, H, y), None, rewards_of(20), config, seed=0))
    assert isinstance(new, HiddenShift) and numbers["steps"] == 4
    torch.testing.assert_close(new.delta, delta.detach())
    assert float(HeadPass(W, H, y).moments(new).margin.mean()) > float(HeadPass(W, H, y).moments().margin.mean())


def test_a_bounded_step_moves_the_policy_no_further_than_it_may() -> None:
    W, H, y = peaked(T=20)
    episode = Episode(torch.full((20,), -1.0, dtype=F64), torch.zeros(20, dtype=torch.long))
    wild, free = parts(policy_gradient_step(HeadPass(W, H, y), None, episode, weights_of("rl", lr=50.0), seed=0))
    tame, bounded = parts(policy_gradient_step(HeadPass(W, H, y), None, episode, weights_of("rl", lr=50.0, max_kl=0.1), seed=0))
    assert free["kl_mean"] > 1 and 0.02 < bounded["kl_mean"] <= 0.1 and bounded["scale"] < 1
    torch.testing.assert_close((tame.B - wild.B * bounded["scale"]), torch.zeros_like(wild.B))  # the same direction
    small = weights_of("rl", lr=1e-4)
    _, one = parts(policy_gradient_step(HeadPass(W, H, y), None, episode, small, seed=0))
    _, same = parts(policy_gradient_step(HeadPass(W, H, y), None, episode, small.model_copy(update={"max_kl": 0.1}), seed=0))
    assert one["kl_mean"] == same["kl_mean"] and same["scale"] == 1.0  # a short step is left as it is

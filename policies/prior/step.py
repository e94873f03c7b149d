"""θ₁ by ROSA's equations (Eq. 3-7) on stored tokens: r = +1 of solved attempts, r = −1 of failed ones.

    H [T, d], y [T], r [T]      tokens of earlier sessions, H under the frozen backbone, which never changes
    x_i = r_i/β                 where Eq. 3 sends token i, in log-odds
    A                           directions of H, without the one that all stored states share (``centred``)
    (J Jᵀ + λI) c = x           J_i = ∂m_i/∂B; B = Jᵀ c

One step from the frozen policy, held there by λ.  It is then tried on answers of solved sessions that it was not made of: as long as
it makes them less likely, or moves the policy further than ``max_kl``, it is halved; in the end it is refused.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from envs.errors import AdaptationError
from policies.adapters.directions import leading_directions
from policies.adapters.lora import LoRAHead
from policies.head_pass import HeadPass, Moments
from policies.methods.effect import check_finite
from policies.methods.episode import Episode
from policies.prior.config import PriorConfig
from policies.rosa.config import RosaConfig
from policies.rosa.solve import Problem, dual
from policies.rosa.target import target_of

UNDECIDED = 0.99
"""Tokens that the frozen policy is surer of than this are not kept: Eq. 3 has nothing to say of them."""


@dataclass(frozen=True)
class Rows:
    """Tokens of stored replies.

    Attributes:
        hidden: H [T, d] float32.
        tokens: y [T] int64.
        rewards: r [T] float64: +1 of a solved attempt, −1 of a failed one.
        replies: The reply that a token is of, [T] int64, ascending.
        ends: True where the token ends its reply, [T] bool.
    """

    hidden: Tensor
    tokens: Tensor
    rewards: Tensor
    replies: Tensor
    ends: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def solved(self) -> Rows:
        """Those of solved attempts."""
        return self.at(self.rewards > 0)

    def at(self, chosen: Tensor) -> Rows:
        """The tokens ``chosen`` (a mask or indices)."""
        return Rows(self.hidden[chosen], self.tokens[chosen], self.rewards[chosen], self.replies[chosen], self.ends[chosen])

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """One after the other, the replies numbered through."""
        replies, first = [], 0
        for part in parts:
            replies.append(part.replies + first)
            first += int(part.replies.max()) + 1 if len(part) else 0
        hidden, tokens = torch.cat([p.hidden for p in parts]), torch.cat([p.tokens for p in parts])
        rewards, ends = torch.cat([p.rewards for p in parts]), torch.cat([p.ends for p in parts])
        return cls(hidden, tokens, rewards, torch.cat(replies), ends)


def kept(weight: Tensor, replies: Sequence[tuple[Tensor, Tensor]], reward: float, stops: frozenset[int]) -> Rows | None:
    """The undecided tokens of an attempt, from (H [n, d], y [n]) per reply; None if every token was decided."""
    parts = []
    for number, (hidden, tokens) in enumerate(replies):
        margin = HeadPass(weight, hidden, tokens).moments().margin
        undecided = (margin.sigmoid() < UNDECIDED).cpu()
        ends = torch.zeros(len(tokens), dtype=torch.bool)
        ends[-1] = int(tokens[-1]) in stops
        rows = Rows(
            hidden.detach().float().cpu(), tokens.cpu(), torch.full((len(tokens),), reward, dtype=torch.float64),
            torch.full((len(tokens),), number), ends,
        )  # fmt: skip
        parts.append(rows.at(undecided))
    found = Rows.joined(parts) if parts else None
    return found if found is not None and len(found) else None


def theta_one(
    weight: Tensor, rows: Rows, check: Rows, config: PriorConfig, common: Tensor | None = None
) -> tuple[LoRAHead | None, dict[str, Any]]:
    """θ₁ and what is to be recorded of it; None if it would help nothing (``reason``).

    Args:
        weight: W [V, d].
        rows: What it is made of.
        check: Tokens of solved attempts that it is not made of.
        common: The mean [d] of all stored states, near or not: the direction that ``centred`` leaves out.

    Raises:
        AdaptationError: NaN or Inf anywhere, or rows of another head.
    """
    started = time.perf_counter()
    numbers: dict[str, Any] = {"T": len(rows), "T_solved": int((rows.rewards > 0).sum()), "T_check": len(check)}
    if not len(check) or not numbers["T_solved"]:
        return None, numbers | {"reason": "too few tokens of solved attempts"}
    rosa = RosaConfig(beta=config.beta, damping=config.damping, p_max=UNDECIDED, fallback_tokens=0, max_rank=config.max_rank)
    head = HeadPass(weight, rows.hidden, rows.tokens)
    A = _directions(head.H, config, common)  # [r, d]
    zero = LoRAHead(A.to(head.H.dtype), head.H.new_zeros(head.V, 0), 1.0)
    before = head.moments(None, gram=True)
    target = target_of(Episode(rows.rewards.where(~rows.ends | (rows.rewards > 0), 0.0), rows.replies), before.margin, rosa)
    if not bool(target.moving.any()):
        return None, numbers | {"reason": "no stored token is undecided"}
    solution = dual(Problem(head, zero, ("B",), before, target, rosa))
    check_finite(solution.delta)
    other = HeadPass(weight, check.hidden, check.tokens)
    tried = _shrunk(zero.moved(solution.delta), (head, before), (other, other.moments()), config)
    numbers |= {"rank": zero.rank, "lambda": solution.lam, **tried[1], "seconds": round(time.perf_counter() - started, 4)}
    return tried[0], numbers


def _directions(H: Tensor, config: PriorConfig, common: Tensor | None) -> Tensor:
    """An orthonormal A [r, d] of the directions that ``H`` [T, d] has, without that of ``common`` [d] where it is left out.

    Not the mean of H itself: of near sessions that is what they have in common against all others.
    """
    H = H.double()
    if config.centred and common is not None:
        mean = common.to(H)
        mean = mean / mean.norm().clamp_min(torch.finfo(torch.float64).tiny)
        H = H - (H @ mean)[:, None] * mean
    found = leading_directions(H, config.max_rank)
    if not len(found):
        raise AdaptationError("The stored hidden states are all alike.")
    return found


def _shrunk(
    full: LoRAHead, fitted: tuple[HeadPass, Moments], check: tuple[HeadPass, Moments], config: PriorConfig
) -> tuple[LoRAHead | None, dict[str, Any]]:
    """``full``, halved until it harms nothing; None if it does at the last size."""
    for halvings in range(config.max_halvings + 1):
        theta = full.at({"B": full.B * 0.5**halvings})
        margin, _ = check[0].compare(None, theta, check[1])
        gain = float((logsigmoid(margin) - logsigmoid(check[1].margin)).mean())  # of log p, per token
        moved, kl = fitted[0].compare(None, theta, fitted[1])
        numbers = {
            "halvings": halvings,
            "check_gain": gain,
            "kl_mean": float(kl.mean()),
            "kl_max": float(kl.max()),
            "log_odds_shift": float((moved - fitted[1].margin).abs().mean()),
            "norm2": float(theta.B.double().square().sum()),
        }
        if gain > 0 and numbers["kl_mean"] <= config.max_kl:
            return theta, numbers
    return None, numbers | {"reason": "it makes answers of earlier solved sessions less likely"}


def digest_of(theta: LoRAHead | None) -> str:
    """A digest of all its bits, "" of none: equal for the same θ₁."""
    if theta is None:
        return ""
    found = hashlib.sha256()
    for tensor in (theta.A, theta.B):
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]

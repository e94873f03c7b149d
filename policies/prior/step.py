"""θ₁ by ROSA's equations (Eq. 3-7) on stored tokens: r = +1 of solved attempts, r = −1 of failed ones.

    H [T, d], y [T], r [T]      tokens of earlier sessions, H under the frozen backbone, which never changes
    x_i = r_i/β                 where Eq. 3 sends token i, in log-odds
    A                           directions of H, without the one that all stored states share (``centred``)
    M = J Jᵀ + λI               J_i = ∂m_i/∂B
    c = M⁻¹ x,  B = s Jᵀ c      one step from the frozen policy, held there by λ, of the size s

How far to go, and whether at all, is decided by sessions that the step does not know.  Made without the tokens S of one session it
would move them by

    x_S − (M⁻¹)_SS⁻¹ c_S        in log-odds, to first order

which the solution of all of them gives at once (leave-one-out of a ridge regression; Allen 1974, PRESS).  s is the size that makes the
answers of solved sessions, each from the others, the most likely; if that is not by ``evidence`` nats in all, there is no θ₁.
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
from policies.prior.config import PriorConfig
from policies.rosa.solve import ridge

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

    def at(self, chosen: Tensor) -> Rows:
        """The tokens ``chosen`` (a mask or indices)."""
        return Rows(self.hidden[chosen], self.tokens[chosen], self.rewards[chosen], self.replies[chosen], self.ends[chosen])

    def most(self, count: int) -> Rows:
        """At most ``count`` of them, those of solved attempts first; they stay in their order."""
        if len(self) <= count:
            return self
        first = torch.argsort((self.rewards < 0).long(), stable=True)[:count]
        return self.at(first.sort().values)

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


LEAST = 4
"""Tokens that every session has room for before a further one is taken."""


def with_room(sessions: Sequence[Rows], room: int) -> list[Rows]:
    """What θ₁ is made of where not all tokens have room: the first sessions, as many as have room for some tokens of each, and of each
    as many as there is room for if all have the same share.

    A session of many tokens so leaves room for the others, and keeps those that solved it.
    """
    least, used = min(LEAST, room), 0
    taken: list[Rows] = []
    for rows in sessions:
        used += min(len(rows), least)
        if used > room:
            break
        taken.append(rows)
    share = room
    while sum(min(len(rows), share) for rows in taken) > room:
        share -= 1
    return [rows.most(share) for rows in taken]


def theta_one(
    weight: Tensor, sessions: Sequence[Rows], config: PriorConfig, common: Tensor | None = None
) -> tuple[LoRAHead | None, dict[str, Any]]:
    """θ₁ and what is to be recorded of it; None if it would help nothing (``reason``).

    Args:
        weight: W [V, d].
        sessions: What it is made of, one per session, the most important one first; no two of the same question, which would vouch for
            each other.
        common: The mean [d] of all stored states, near or not: the direction that ``centred`` leaves out.

    Raises:
        AdaptationError: NaN or Inf anywhere, or rows of another head.
    """
    started = time.perf_counter()
    parts = with_room(sessions, config.max_tokens)
    rows = Rows.joined(parts)
    owner = torch.cat([torch.full((len(one),), n) for n, one in enumerate(parts)])  # [T]
    good = rows.rewards > 0
    numbers: dict[str, Any] = {"T": len(rows), "T_solved": int(good.sum()), "sessions": len(owner.unique())}
    if numbers["sessions"] < 2 or not numbers["T_solved"]:
        return None, numbers | {"reason": "too few tokens of solved attempts"}
    head = HeadPass(weight, rows.hidden, rows.tokens)
    A = _directions(head.H, config, common)  # [r, d]
    zero = LoRAHead(A.to(head.H.dtype), head.H.new_zeros(head.V, 0), 1.0)
    before = head.moments(None, gram=True)
    wanted = torch.where(rows.ends & ~good, 0.0, rows.rewards / config.beta)  # [T] what ends a reply is never unlearned
    x = wanted.to(before.margin)
    K = zero.kernel(head, before, torch.arange(len(rows)).to(head.device), ("B",))  # [T, T] = J Jᵀ
    lam = ridge(float(K.diagonal().mean()), head.T, config.damping, head.dtype)
    c, apart = _solved(K, lam, x, owner)
    gains = {size: _gain(before.margin, apart * size, good) for size in _sizes(config)}
    size = max(gains, key=lambda s: (gains[s], -s))
    numbers |= {"rank": zero.rank, "lambda": lam, "size": size, "gain": gains[size]}
    if not gains[size] > config.evidence:
        return None, numbers | {"reason": "it does not make the answers of earlier solved sessions likelier"}
    full = zero.moved(zero.pull(head, before, c, ("B",)))
    check_finite(full.theta)
    theta, moved = _bounded(full, size, head, before, config)
    return theta, numbers | moved | {"seconds": round(time.perf_counter() - started, 4)}


def _sizes(config: PriorConfig) -> list[float]:
    return [config.largest * 0.5**n for n in range(config.max_halvings + 1)]


def _solved(K: Tensor, lam: float, x: Tensor, owner: Tensor) -> tuple[Tensor, Tensor]:
    """c = (K + λI)⁻¹ x [T], and by how much each token would move if its session were left out [T].  Overwrites K."""
    K.diagonal().add_(lam)
    L, info = torch.linalg.cholesky_ex(K)
    if int(info):
        raise AdaptationError("The stored tokens cannot be told apart.", "Use a larger experience.weights.damping.")
    inverse = torch.cholesky_inverse(L)
    c = inverse @ x
    apart = torch.empty_like(x)
    for one in owner.unique().tolist():
        S = (owner == one).nonzero()[:, 0].to(x.device)
        apart[S] = x[S] - torch.linalg.solve(inverse[S][:, S], c[S])
    return c, apart


def _gain(margin: Tensor, shift: Tensor, good: Tensor) -> float:
    """Σ of Δ log p over the tokens of solved attempts, if the log-odds ``margin`` [T] move by ``shift`` [T]."""
    return float((logsigmoid(margin + shift) - logsigmoid(margin))[good.to(margin.device)].sum())


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


def _bounded(full: LoRAHead, size: float, head: HeadPass, before: Moments, config: PriorConfig) -> tuple[LoRAHead, dict[str, Any]]:
    """``size`` times ``full``, halved until the policy moves by at most ``max_kl``, and how far it moves."""
    while True:
        theta = full.at({"B": full.B * size})
        margin, kl = head.compare(None, theta, before)
        check_finite({"kl": kl})
        if float(kl.mean()) <= config.max_kl:
            break
        size /= 2
    shift = (margin - before.margin).abs().mean()
    norm2 = float(theta.B.double().square().sum())
    moved = {"kl_mean": float(kl.mean()), "kl_max": float(kl.max()), "log_odds_shift": float(shift), "norm2": norm2}
    return theta, {"size": size, **moved}


def digest_of(theta: LoRAHead | None) -> str:
    """A digest of all its bits, "" of none: equal for the same θ₁."""
    if theta is None:
        return ""
    found = hashlib.sha256()
    for tensor in (theta.A, theta.B):
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]

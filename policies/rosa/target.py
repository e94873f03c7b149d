"""ROSA's target (Eq. 3): which tokens of an attempt enter, and where each should go; as probabilities or as log-odds.

Eq. 3 for one token is logit π̃_i = logit p_i + r_i/β.  For a whole response y, π̃(y) ∝ π(y) e^{r/β} and all others as they were, it
decomposes exactly into (docs/rosa.md has the proof)

    logit π̃_i = logit p_i + log(1 − (1 − e^{r/β}) S_i),      S_i = Π_{j>i} p_j
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from envs.errors import AdaptationError
from policies.methods.episode import Episode, Replayed, chosen_tokens, rest_of
from policies.rosa.config import RosaConfig


@dataclass(frozen=True)
class Target:
    """Where T' of the attempt's T tokens should go.

    Attributes:
        keep: The tokens that enter, indices [T'].
        shift: x_i = logit π̃_i − logit p_i [T'] float64; 0 for those that are to stay.
        linearization: "probability" or "log_odds".
        fallback: No rewarded token was undecided, so the least certain ones were taken.
    """

    keep: Tensor
    shift: Tensor
    linearization: str
    fallback: bool = False

    @property
    def moving(self) -> Tensor:
        """The tokens that are not to stay, [T'] bool."""
        return self.shift != 0

    def value(self, margin: Tensor) -> Tensor:
        """The observable that is taken to be linear in θ (Eq. 4), of log-odds ``margin`` [T'] -> [T']."""
        return margin if self.linearization == "log_odds" else margin.sigmoid()

    def log_slope(self, margin: Tensor) -> Tensor:
        """log P_ii, P_ii = ∂value_i/∂m_i [T']: log p(1 − p), or 0."""
        return torch.zeros_like(margin) if self.linearization == "log_odds" else -F.softplus(-margin) - F.softplus(margin)

    def gap(self, before: Tensor, margin: Tensor) -> Tensor:
        """R [T'] (Eq. 5): the target set at log-odds ``before``, minus the value at ``margin``."""
        left = before + self.shift - margin  # [T'] still to go, in log-odds
        return left if self.linearization == "log_odds" else probability_gap(margin, left)


def target_of(episode: Episode, margin: Tensor, config: RosaConfig) -> Target:
    """Eq. 3 for an attempt.  ``margin`` [T]: log-odds of its tokens before the update.

    Raises:
        AdaptationError: ``tokens=coordinates``, or tokens that frame a reply are protected, and the policy did not say which they are.
    """
    least = margin if episode.guided is None else torch.minimum(margin, _guided(episode, margin))
    chosen, fallback = chosen_tokens(episode, least, config)  # [T]; what the guidance makes doubtful is undecided too
    x = torch.where(chosen, _shift(episode, margin, config), 0.0)  # [T] logit π̃_i − logit p_i
    enters = torch.ones_like(chosen) if config.anchor else chosen
    if episode.replayed is not None:
        new = len(margin) - episode.older
        x[new:] = episode.replayed.shift(margin[new:])
        enters = enters.index_fill(0, torch.arange(new, len(margin), device=margin.device), True)
    keep = enters.nonzero()[:, 0]
    return Target(keep, x[keep], config.linearization, fallback)


def _shift(episode: Episode, margin: Tensor, config: RosaConfig) -> Tensor:
    """x_i = logit π̃_i − logit p_i of every token, [T]."""
    x = episode.rewards.to(margin.device, torch.float64) / config.beta  # [T] r_i/β
    kept = torch.zeros(len(x), dtype=torch.bool, device=margin.device)  # [T]
    if config.protects:
        if episode.frame is None:
            raise AdaptationError("This policy does not say which tokens frame a reply.", "Use adapt.weights.protect=false.")
        kept = episode.frame.to(margin.device)
    if config.target == "guided":
        rewarded = episode.rewards.to(margin.device) != 0
        x = torch.where(rewarded, (_guided(episode, margin) - margin) / config.beta, 0.0)
    elif config.target != "token":
        new = len(x) - episode.older
        rest = episode.rest  # [T − n]
        if rest is None:
            replies = episode.steps if episode.replies is None else episode.replies
            rest = rest_of(margin[:new], replies[:new], kept[:new], whole_attempt=config.target == "episode")
        x = torch.cat([response_shift(x[:new], rest.to(margin.device)), x[new:]])
    return torch.where(kept & (x < 0), 0.0, x)


def _guided(episode: Episode, margin: Tensor) -> Tensor:
    """Log-odds under the new guidance, [T]; of replayed tokens, those that they have.

    Raises:
        AdaptationError: nobody said what they are.
    """
    if episode.guided is None:
        raise AdaptationError("There is no guidance to learn from.", "Use target=token, or learn words too (adapt.words.method).")
    new = len(margin) - episode.older
    return torch.cat([episode.guided.to(margin), margin[new:]])


def response_shift(x: Tensor, log_S: Tensor) -> Tensor:
    """log(1 − (1 − e^x)·S): what token i moves by, in log-odds, when its response is to move by the factor e^x (docs/rosa.md).

    ``x`` = r/β [T], ``log_S`` [T] log-probability of what followed.
    """
    small = torch.log1p(torch.expm1(x) * log_S.exp())  # exact where little of the mass is S
    large = torch.logaddexp(torch.log(-torch.expm1(log_S)), x + log_S)  # log((1 − S) + e^x S): exact where S is near 1
    return torch.where((log_S < -0.7) & (x < 30.0), small, large)


def replayed_from(episode: Episode, target: Target, after: Tensor) -> Replayed:
    """What an accepted update leaves to be replayed: log-odds ``after`` it [T], and by how much each token was to move."""
    moved = torch.zeros_like(after).index_copy(0, target.keep, target.shift)
    if episode.replayed is not None:
        moved[len(moved) - episode.older :] = episode.replayed.moved.to(moved.device)
    return Replayed(after.double().cpu(), moved.cpu())


def relative_gap(logit: Tensor, shift: Tensor) -> Tensor:
    """(σ(ℓ + x) − σ(ℓ)) / (p (1 − p)), p = σ(ℓ): Eq. 3's move without the cancellation and overflow of its two terms."""
    p, rest, fall = logit.sigmoid(), (-logit).sigmoid(), torch.exp(-shift.abs())
    size = -torch.expm1(-shift.abs()) / torch.where(shift > 0, rest * fall + p, p * fall + rest)
    return torch.where(shift > 0, size, -size)


def probability_gap(logit: Tensor, shift: Tensor) -> Tensor:
    """σ(ℓ + x) − σ(ℓ)."""
    return logit.sigmoid() * (-logit).sigmoid() * relative_gap(logit, shift)

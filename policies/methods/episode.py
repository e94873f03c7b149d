"""What is known of a failed attempt's T tokens besides H and y, and which of them an update moves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from envs.errors import AdaptationError
from policies.methods.config import TokensConfig


@dataclass(frozen=True)
class Episode:
    """One attempt.

    Attributes:
        rewards: r_i of the token's step, [T] float64 in [-1, 1].
        steps: The step (reply) a token belongs to, [T] int64.
        coordinates: True where the token is part of a coordinate, [T] bool; None if the policy did not say.
        frame: True where the token ends or frames its reply, [T] bool; None if the policy did not say.
        replies: The reply a token belongs to, [T] int64, where a reply was recorded as several steps; None: one step each.
        rest: log S_i [T − n], the log-probability of what followed a token, where tokens were dropped; None: all of it is here.
        guided: Log-odds of the tokens under the new guidance, by the model itself, [T − n] float64; None if they were not asked for.
        replayed: Tokens of earlier attempts, the last n of the T; their rewards are 0, their marks False.
    """

    rewards: Tensor
    steps: Tensor
    coordinates: Tensor | None = None
    frame: Tensor | None = None
    replayed: Replayed | None = None
    guided: Tensor | None = None
    replies: Tensor | None = None
    rest: Tensor | None = None

    @property
    def older(self) -> int:
        """n, how many of the T tokens are replayed."""
        return 0 if self.replayed is None else len(self.replayed.margin)


@dataclass(frozen=True)
class Replayed:
    """Where earlier updates put the tokens of earlier attempts.

    Attributes:
        margin: The log-odds that they were to get, [n] float64.
        moved: By how much their own update was to move them, in log-odds, [n] float64; 0 for those that were to stay.
    """

    margin: Tensor
    moved: Tensor

    def shift(self, margin: Tensor) -> Tensor:
        """What has to be corrected at log-odds ``margin`` [n]: of a token that was moved, only a move back."""
        left = self.margin.to(margin.device) - margin
        back = left * self.moved.to(margin.device).sign() > 0
        return torch.where(back | (self.moved.to(margin.device) == 0), left, 0.0)


def log_rest(log_p: Tensor, part: Tensor) -> Tensor:
    """log S_i = Σ_{j>i} log p_j over the later tokens of the same part, [T].  ``log_p``, ``part`` (ascending, a number each) [T]."""
    after = log_p.flip(0).cumsum(0).flip(0) - log_p  # of all later tokens
    _, sizes = part.unique_consecutive(return_counts=True)
    ends = sizes.cumsum(0) - 1  # the last token of each part
    return (after - after[ends].repeat_interleave(sizes)).clamp(max=0.0)


def rest_of(margin: Tensor, replies: Tensor, given: Tensor | None, *, whole_attempt: bool) -> Tensor:
    """log S_i of an attempt's own tokens, from their log-odds ``margin`` [n] -> [n].

    ``replies`` [n]: the reply a token is of; ``given`` [n] bool: tokens that are taken as given; ``whole_attempt``: what followed is all
    that followed in the attempt, not only in its reply.
    """
    log_p = -softplus(-margin)  # [n] log p_i
    if given is not None:
        log_p = torch.where(given.to(margin.device), 0.0, log_p)
    return log_rest(log_p, torch.zeros_like(replies).to(margin.device) if whole_attempt else replies.to(margin.device))


def chosen_tokens(episode: Episode, margin: Tensor, config: TokensConfig) -> tuple[Tensor, bool]:
    """Which tokens may be moved, [T] bool, and whether these are the least certain ones because none is undecided.

    ``margin`` [T]: log-odds of the tokens before the update.

    Raises:
        AdaptationError: ``tokens=coordinates``, but the policy did not say which tokens are coordinates.
    """
    rewarded = episode.rewards.to(margin.device) != 0
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

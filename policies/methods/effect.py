"""What an update gives, and what it did to the policy: the numbers that every method records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from envs.errors import AdaptationError
from policies.adapters.base import HeadAdapter, norm2
from policies.head_pass import HeadPass, Moments
from policies.methods.episode import Replayed


@dataclass(frozen=True)
class Learned:
    """What an update rule gives.

    Attributes:
        adapter: The new adapter; None if the old one stays, ``numbers["reason"]`` then says why.
        numbers: To be recorded, JSON-serialisable.
        replay: Where the attempt's tokens are to stay from now on, for rules that see them again; else None.
    """

    adapter: HeadAdapter | None
    numbers: dict[str, Any] = field(default_factory=dict)
    replay: Replayed | None = None


@dataclass(frozen=True)
class Effect:
    """What an update did to the policy on the attempt's own H.

    Attributes:
        kl_mean, kl_max: KL(π_new ‖ π_old) over the tokens.
        log_odds_shift: Mean change of logit p_i of the tokens that were to move.
        delta_norm2: ‖Δθ‖².
    """

    kl_mean: float
    kl_max: float
    log_odds_shift: float
    delta_norm2: float


def acting(adapter: HeadAdapter | None) -> HeadAdapter | None:
    """The adapter if it changes any logit, else None: no products are computed for one that does not."""
    return adapter if adapter is not None and adapter.active else None


def effect(
    head: HeadPass, before: Moments, old: HeadAdapter, new: HeadAdapter, moving: Tensor, delta_norm2: float
) -> tuple[Effect, Tensor]:
    """Recompute the policy on H under ``new``, by the head alone; the log-odds [T] under it come too.

    ``before``: moments under ``old``; ``moving``: the tokens that were to move, indices.
    """
    after, kl = head.compare(acting(old), new, before)
    shift = (after[moving] - before.margin[moving]).mean()
    return Effect(float(kl.mean()), float(kl.max()), float(shift), delta_norm2), after


def check_finite(delta: Mapping[str, Tensor]) -> None:
    """Raises AdaptationError if a step holds NaN or Inf."""
    for name, change in delta.items():
        if not math.isfinite(norm2({name: change})):
            raise AdaptationError(f"The step of {name} contains NaN or Inf.", "Raise the damping; nothing was changed.")

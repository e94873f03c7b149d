"""Peaked synthetic policies: heads and hidden states for which most tokens are likely, a few are not."""

from typing import Any

import torch
from torch import Tensor

from policies.adaptation import config_of
from policies.methods.effect import Learned
from policies.rosa.config import PAPER

SETTINGS = {
    "rosa": {"method": "rosa"},
    "rosa-paper": {"method": "rosa", **PAPER, "cg_iterations": 10},  # of fifty: enough to learn something
    "rl": {"method": "rl"},
    "slot": {"method": "slot"},
}


def weights_of(name: str, **changes: Any) -> Any:
    """The settings of a method, or the paper's own of ROSA, with single values changed."""
    return config_of({**SETTINGS[name], **changes})


def parts(learned: Learned) -> tuple[Any, dict[str, Any]]:
    """The adapter and the numbers of an update."""
    return learned.adapter, learned.numbers


def peaked(
    T: int = 60, V: int = 500, d: int = 32, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """W [V, d], H [T, d], y [T]."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(V, d, generator=g, dtype=torch.float64)
    y = torch.randint(0, V, (T,), generator=g)
    pull = torch.rand(T, 1, generator=g, dtype=torch.float64) * 0.5 + 0.05
    H = 0.3 * torch.randn(T, d, generator=g, dtype=torch.float64) + pull * W[y]
    return W.to(dtype), H.to(dtype), y

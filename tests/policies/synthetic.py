"""Peaked synthetic policies: heads and hidden states for which most tokens are likely, a few are not."""

import torch
from torch import Tensor


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

"""Directions of the hidden states of an attempt: where the rows of A come from."""

from __future__ import annotations

import torch
from torch import Tensor

EXACT = 1024  # beyond this many rows and columns, leading directions come from subspace iteration instead of a full SVD


def leading_directions(H: Tensor, rank: int) -> Tensor:
    """An orthonormal basis [k, d] of the ``rank`` leading right singular directions of ``H`` [n, d]; k ≤ rank, none zero."""
    H = H.double()
    if min(H.shape) > EXACT and rank < min(H.shape) // 4:
        return _subspace(H, rank)
    _, values, Vt = torch.linalg.svd(H, full_matrices=False)
    keep = int((values[:rank] > values[0] * max(H.shape) * torch.finfo(torch.float32).eps * 1e-3).sum())
    return Vt[:keep]


def _subspace(H: Tensor, rank: int, rounds: int = 6) -> Tensor:
    """Leading right singular directions by subspace iteration from a fixed start."""
    start = torch.randn(H.shape[1], rank + 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(H.device)
    Q = torch.linalg.qr(start)[0]
    for _ in range(rounds):
        Q = torch.linalg.qr(H.T @ (H @ Q))[0]
    _, _, Vt = torch.linalg.svd(H @ Q, full_matrices=False)
    return (Vt @ Q.T)[:rank]


def not_spanned(directions: Tensor, A: Tensor) -> Tensor:
    """An orthonormal basis [k, d] of the part of ``directions`` [n, d] that the rows of ``A`` [r, d] do not span; k may be 0."""
    basis = torch.linalg.qr(A.double().T)[0]  # [d, r]
    for _ in range(2):  # twice is enough for orthogonality to rounding
        directions = directions - (directions @ basis) @ basis.T
    _, values, Vt = torch.linalg.svd(directions, full_matrices=False)
    return Vt[values > 1e-6]  # of directions of norm 1: what is left of a spanned one is rounding

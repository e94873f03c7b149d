"""Muon (Jordan et al. 2024) in float32: ``torch.optim.Muon`` orthogonalises in bfloat16, which many CPUs only emulate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic Newton-Schulz coefficients of the reference implementation


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix to ``matrix`` [m, n], roughly: singular values end up in about [0.7, 1.2]."""
    x = matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + torch.addmm(gram, gram, gram, beta=_B, alpha=_C) @ x
    return x.mT if matrix.shape[0] > matrix.shape[1] else x


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised, for 2-D hidden weights only.

    Args:
        params: Matrices.
        lr: Spectral norm of one step (times sqrt(max(1, rows / columns))).
        momentum: Nesterov momentum.
        weight_decay: Decoupled.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 0.02, momentum: float = 0.95, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            sizes = [p.numel() for p in params]
            updates = torch.zeros(sum(sizes))
            for i, (p, out) in enumerate(zip(params, updates.split(sizes), strict=True)):
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                buffer = state["momentum"].lerp_(p.grad, 1 - group["momentum"])
                if i % world == rank:  # workers share the orthogonalisation
                    out.copy_(orthogonalised(p.grad.lerp(buffer, group["momentum"])).flatten())
            if world > 1:
                dist.all_reduce(updates)
            for p, update in zip(params, updates.split(sizes), strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.view_as(p), alpha=-group["lr"] * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)

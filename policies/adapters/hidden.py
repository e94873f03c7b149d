"""The hidden-state shift: z = W (h + δ), one vector of d numbers before the head.

∂z_i/∂δ = W      Ĵ_i = Wᵀĝ_i      K̂_ij = ⟨Wᵀĝ_i, Wᵀĝ_j⟩      Δδ = Σ_i a_i Wᵀĝ_i
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from envs.errors import PolicyError
from policies.adapters.base import Delta, HeadAdapter, Kernel, read_tensors, write_tensors
from policies.adapters.config import AdapterConfig
from policies.head_pass import HeadPass, Moments


@dataclass(frozen=True, eq=False)
class HiddenShift(HeadAdapter):
    """z = W (h + δ).  ``delta`` [d]."""

    FILE: ClassVar[str] = "hidden_shift.safetensors"

    delta: Tensor
    # W δ is the same at every step of an episode: computed at the first one, for the head it was computed with.
    _bias: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.delta.ndim != 1:
            raise PolicyError(f"A hidden-state shift is one vector [d], not {tuple(self.delta.shape)}.")

    # -- its logits
    @property
    def rank(self) -> int:
        return 1

    def project(self, hidden: Tensor) -> None:
        return None

    def chunk(self, projected: Tensor | None, weight: Tensor, lo: int, hi: int) -> Tensor:
        return (weight.to(self.delta.dtype) @ self.delta)[None, :]  # [1, hi-lo]

    def logits_delta(self, hidden: Tensor, weight: Tensor) -> Tensor:
        key = weight.data_ptr()
        if key not in self._bias:
            step = max(1, 2**24 // weight.shape[1])  # a wide copy of all of W would take gigabytes on a bf16 model
            parts = [self.chunk(None, weight[lo : lo + step], lo, lo + step) for lo in range(0, weight.shape[0], step)]
            self._bias.clear()
            self._bias[key] = torch.cat(parts, dim=1)
        return self._bias[key]

    def logits(self, hidden: Tensor, weight: Tensor, theta: Mapping[str, Tensor]) -> Tensor:
        delta = theta.get("delta", self.delta.to(hidden.dtype))  # [d]
        return (hidden + delta) @ weight.T  # [n, V]

    # -- θ as a value
    @property
    def theta(self) -> Delta:
        return {"delta": self.delta}

    def at(self, theta: Mapping[str, Tensor]) -> Self:
        return type(self)(theta.get("delta", self.delta))

    @classmethod
    def zero(cls, config: AdapterConfig, head: HeadPass, seed: int) -> Self:
        return cls(torch.zeros(head.d, device=head.device, dtype=head.dtype))

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        return type(self)(self.delta.to(device, dtype))

    def head_shape(self, weight: Tensor) -> tuple[int, int]:
        return weight.shape[0], len(self.delta)

    # -- derivatives
    @classmethod
    def free(cls, config: AdapterConfig) -> tuple[str, ...]:
        return ("delta",)

    @classmethod
    def needs(cls, adapter: Self | None, free: tuple[str, ...], kernel: Kernel = "none") -> dict[str, Any]:
        return {"gW": True}

    def kernel(self, head: HeadPass, moments: Moments, rows: Tensor, free: tuple[str, ...]) -> Tensor:
        assert moments.gW is not None
        J = moments.gW[rows]  # [T', d]
        return J @ J.T

    def kernel_diagonal(self, head: HeadPass, moments: Moments, free: tuple[str, ...]) -> Tensor:
        assert moments.gW is not None
        return moments.gW.square().sum(1)

    def pull(self, head: HeadPass, moments: Moments, a: Tensor, free: tuple[str, ...]) -> Delta:
        assert moments.gW is not None
        return {"delta": moments.gW.T @ a}  # [d]

    # -- on disk
    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / self.FILE, {"delta": self.delta})

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Self:
        tensors, _ = read_tensors(folder / cls.FILE, device)
        return cls(tensors["delta"])

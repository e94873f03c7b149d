"""The LoRA head: z = W h + s·B A h (ROSA App. D.5).

    ∂m_i/∂B = s ĝ_i (A h_i)ᵀ      ∂m_i/∂A = s (Bᵀĝ_i) h_iᵀ
    K̂_ij = s² ( ⟨ĝ_i, ĝ_j⟩ ⟨A h_i, A h_j⟩ + ⟨Bᵀĝ_i, Bᵀĝ_j⟩ ⟨h_i, h_j⟩ )        A and B free
    K̂_ij = s² ⟨ĝ_i, ĝ_j⟩ ⟨A h_i, A h_j⟩                                         only B free
    ΔB = s Ĝᵀ diag(a) (H Aᵀ)      ΔA = s (diag(a) Ĝ B)ᵀ H

**Which parameters move.**  A random A (paper) is one of the unknowns, so A and B both move (at B = 0 the step of A is zero by
the formula).  An A with orthonormal rows that span the attempt's H makes s²⟨A h_i, A h_j⟩ = s²⟨h_i, h_j⟩: moving B alone is
then already the least-norm change Δ(W) = Σ_i a_i ĝ_i h_iᵀ of the *whole* head, A has nothing left to contribute, and stays
fixed.  Later updates append only directions that A does not span yet, with B = 0.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from envs.errors import PolicyError, StoreError
from policies.adapters.base import Delta, HeadAdapter, Kernel, read_tensors, write_tensors
from policies.adapters.config import AdapterConfig
from policies.adapters.directions import leading_directions, not_spanned
from policies.head_pass import BLOCK, ROWS, HeadPass, Moments

NAMES = {"A": "base_model.model.lm_head.lora_A.weight", "B": "base_model.model.lm_head.lora_B.weight"}
"""Names of the tensors in PEFT's file."""


@dataclass(frozen=True, eq=False)
class LoRAHead(HeadAdapter):
    """z = W h + s·B A h.  ``A`` [r, d], ``B`` [V, r], ``scale`` s.  (ROSA App. D.5)

    ``B`` may lack its last columns: directions no update has used yet, whose zeros would be [V, k] of memory.
    """

    FILE: ClassVar[str] = "adapter_model.safetensors"

    A: Tensor
    B: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[0] < self.B.shape[1]:
            raise PolicyError(f"A LoRA head needs A [r, d] and B [V, r], not {tuple(self.A.shape)} and {tuple(self.B.shape)}.")

    # -- its logits
    @property
    def rank(self) -> int:
        return self.A.shape[0]

    @property
    def active(self) -> bool:
        return bool(self.B.any())

    def project(self, hidden: Tensor) -> Tensor:
        return self.scale * (hidden.to(self.A.dtype) @ self.A.T)  # [n, r] = s·H Aᵀ

    def chunk(self, projected: Tensor | None, weight: Tensor, lo: int, hi: int) -> Tensor:
        assert projected is not None
        return projected[:, : self.B.shape[1]] @ self.B[lo:hi].T  # [n, hi-lo]

    def logits(self, hidden: Tensor, weight: Tensor, theta: Mapping[str, Tensor]) -> Tensor:
        A = theta.get("A", self.A.to(hidden.dtype))  # [r, d]
        B = theta.get("B", self.B.to(hidden.dtype))  # [V, r]
        return hidden @ weight.T + self.scale * ((hidden @ A.T) @ B.T)  # [n, V]

    # -- θ as a value
    @property
    def theta(self) -> Delta:
        return {"A": self.A, "B": self.B}

    def at(self, theta: Mapping[str, Tensor]) -> Self:
        return type(self)(theta.get("A", self.A), theta.get("B", self.B), self.scale)

    @classmethod
    def zero(cls, config: AdapterConfig, head: HeadPass, seed: int) -> Self | None:
        if config.a_init != "random":
            return None
        return cls.random(head.V, head.d, config.rank or 1, config.scale, seed=seed, like=head.H)

    @classmethod
    def random(cls, V: int, d: int, rank: int, scale: float, *, seed: int, like: Tensor) -> Self:
        """A as PEFT draws it (uniform in ±1/√d), B = 0.  Drawn on the CPU, so that a seed means the same on every device."""
        A = (torch.rand(rank, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1) / d**0.5
        return cls(A.to(like.device, like.dtype), torch.zeros(V, rank, device=like.device, dtype=like.dtype), scale)

    @classmethod
    def with_room(cls, adapter: Self | None, head: HeadPass, rows: Tensor, moving: Tensor, config: AdapterConfig) -> Self:
        """For an A taken from the attempt, with its new directions appended (and nothing to B)."""
        if adapter is not None and config.a_init == "random":
            return adapter
        rank = min(config.rank or config.max_rank, config.max_rank)
        # Tokens that stay are held exactly only by their own directions: those are affordable while all fit into the adapter.
        taken = rows if config.rank is None and len(rows) <= rank else rows[moving]
        directions = leading_directions(head.H[taken], rank)  # [k, d]
        if adapter is None:
            return cls(directions.to(head.H.dtype), head.H.new_zeros(head.V, 0), config.scale)
        new = not_spanned(directions, adapter.A)
        return adapter if len(new) == 0 else replace(adapter, A=torch.cat([adapter.A, new.to(adapter.A.dtype)]))

    def widened(self) -> Self:
        """The same adapter with all columns of B in memory."""
        missing = self.rank - self.B.shape[1]
        return self if missing == 0 else replace(self, B=nn.functional.pad(self.B, (0, missing)))

    def truncated(self, max_rank: int) -> Self:
        """A truncated SVD of B A, with an orthonormal A.

        The nearest is B A projected on its leading right singular directions, which the r×r products of B with itself give: at
        V = 152,064 a factorisation of B itself would take gigabytes in float64.
        """
        if self.rank <= max_rank:
            return self
        A, B = self.A.double(), self.B
        inner = sum((part.double().T @ part.double() for part in B.split(ROWS)), A.new_zeros(len(A), len(A)))  # BᵀB [r, r]
        Q, R = torch.linalg.qr(A.T)  # [d, k], [k, r]
        _, directions = torch.linalg.eigh(R @ inner @ R.T)  # ascending
        new = directions.flip(1)[:, :max_rank].T @ Q.T  # [max_rank, d]
        return type(self)(new.to(self.A.dtype), B @ (A @ new.T).to(B.dtype), self.scale)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        return type(self)(self.A.to(device, dtype), self.B.to(device, dtype), self.scale)

    def head_shape(self, weight: Tensor) -> tuple[int, int]:
        return self.B.shape[0], self.A.shape[1]

    # -- derivatives
    @classmethod
    def free(cls, config: AdapterConfig) -> tuple[str, ...]:
        return ("A", "B") if config.a_init == "random" else ("B",)

    @classmethod
    def needs(cls, adapter: Self | None, free: tuple[str, ...], kernel: Kernel = "none") -> dict[str, Any]:
        moving = "A" in free and adapter is not None and adapter.active  # at B = 0 the step of A is zero
        return {"g2": kernel == "diagonal", "gram": kernel == "full", "B": adapter.B if moving and adapter is not None else None}

    def kernel(self, head: HeadPass, moments: Moments, rows: Tensor, free: tuple[str, ...]) -> Tensor:
        assert moments.gram is not None
        U = self.project(head.H[rows]).double()  # [T', r] = s·H Aᵀ
        K = U.new_empty(len(rows), len(rows))
        moving = "A" in free and moments.gB is not None
        if moving:
            assert moments.gB is not None
            gB, H = moments.gB[rows], head.H[rows].double()  # [T', r], [T', d]
        for lo in range(0, len(rows), BLOCK):  # rows at a time: K is the only matrix of its size made here
            block = slice(lo, lo + BLOCK)
            part = moments.gram[rows[block]][:, rows] * torch.mm(U[block], U.T, out=K[block])
            if moving:
                part += (gB[block] @ gB.T) * (H[block] @ H.T) * self.scale**2
            K[block] = part
        return K

    def kernel_diagonal(self, head: HeadPass, moments: Moments, free: tuple[str, ...]) -> Tensor:
        assert moments.g2 is not None
        diagonal = moments.g2 * self.project(head.H).double().square().sum(1)
        if "A" in free and moments.gB is not None:
            diagonal = diagonal + self.scale**2 * moments.gB.square().sum(1) * head.H.double().square().sum(1)
        return diagonal

    def pull(self, head: HeadPass, moments: Moments, a: Tensor, free: tuple[str, ...]) -> Delta:
        delta: Delta = {}
        if "A" in free and moments.gB is not None:  # no gB: B = 0, and so is the step of A
            delta["A"] = self.scale * (a[:, None] * moments.gB).T @ head.H.double()  # [r, d]
        if "B" in free:
            U = (a[:, None] * self.project(head.H).double()).to(head.dtype)  # [T, r] = s·diag(a) H Aᵀ
            delta["B"] = head.spread(self if self.active else None, moments, U)  # [V, r]
        return delta

    # -- on disk
    def save(self, folder: Path) -> None:
        """PEFT's layout: ``PeftModel.from_pretrained(base, folder)`` gives the same logits on the plain base model.

        PEFT applies lora_alpha / r, so lora_alpha = s·r; the exact s is kept in the tensor file's metadata.
        """
        from peft import LoraConfig  # seconds of import that only saving needs

        folder.mkdir(parents=True, exist_ok=True)
        alpha = self.scale * self.rank
        config = LoraConfig(
            r=self.rank,
            lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # type: ignore[arg-type]  # PEFT only ever divides it by r
            lora_dropout=0.0,
            target_modules=["lm_head"],
            inference_mode=True,
        )
        config.save_pretrained(str(folder))
        whole = self.widened().theta
        write_tensors(folder / self.FILE, {name: whole[key] for key, name in NAMES.items()}, {"scale": repr(self.scale)})

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Self:
        """Also what PEFT itself wrote."""
        path = folder / cls.FILE
        tensors, metadata = read_tensors(path, device)
        by_end = {name.rsplit("lora_", 1)[-1]: value for name, value in tensors.items()}
        A, B = by_end["A.weight"], by_end["B.weight"]
        if A.shape[0] != B.shape[1]:
            raise StoreError(f"{path} holds A {tuple(A.shape)} and B {tuple(B.shape)}, which do not belong together.")
        known = metadata.get("scale")  # PEFT itself writes none
        scale = float(known) if known is not None else _peft_alpha(folder / "adapter_config.json") / A.shape[0]
        return cls(A, B, scale)


def _peft_alpha(path: Path) -> float:
    """lora_alpha, as PEFT writes it.

    Raises:
        StoreError: the file cannot be read, or has no such number.
    """
    try:
        return float(json.loads(path.read_text(encoding="utf-8"))["lora_alpha"])
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise StoreError(f"{path} has no lora_alpha that can be read ({type(error).__name__}).") from error

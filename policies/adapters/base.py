"""The contract of an adapter.

Letters used by every module of the weights axis (ROSA, arXiv 2509.23166):

    T tokens · d hidden size · V vocabulary · r LoRA rank · s = lora_alpha / r
    H [T, d] what ``lm_head`` receives · W [V, d] the frozen head · A [r, d], B [V, r] the adapter · δ [d] the hidden-state shift
    m_i = logit p_i, ĝ_i = ∂m_i/∂z_i [V], Ĵ_i = ∂m_i/∂θ = ĝ_iᵀ ∂z_i/∂θ     (:mod:`policies.head_pass`)

An adapter is an immutable value: an update makes a new one, so undoing an update is keeping the old one.  It acts on the
head's *output* only; with tied embeddings the input side therefore stays what it was, and the backbone is shared by all sessions.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from envs.errors import StoreError
from policies.adapters.config import AdapterConfig
from policies.head_pass import ROWS, HeadPass, Moments

Delta = dict[str, Tensor]
"""θ, or a step of it: a tensor per parameter of the adapter."""

Kernel = Literal["none", "diagonal", "full"]
"""How much of K̂ = Ĵ Ĵᵀ an update needs."""


def norm2(delta: Mapping[str, Tensor]) -> float:
    """‖Δθ‖²."""
    return float(sum(part.double().square().sum() for change in delta.values() for part in change.split(ROWS)))


class HeadAdapter(abc.ABC):
    """What one session adds to the logits of the shared head, and all the mathematics of it."""

    FILE: ClassVar[str]
    """Name of the file of its tensors; a folder that has it holds such an adapter."""

    # ------------------------------------------------------------------------------------------------------- its logits
    @property
    @abc.abstractmethod
    def rank(self) -> int:
        """Rank of the change of the logits as a function of h."""

    @property
    def nbytes(self) -> int:
        """Memory of its tensors, in bytes."""
        return sum(value.nbytes for value in self.theta.values())

    @property
    def active(self) -> bool:
        """Whether it changes any logit; while it does not, no products are computed for it."""
        return True

    @abc.abstractmethod
    def project(self, hidden: Tensor) -> Tensor | None:
        """The part of the adapter's logits that does not depend on the vocabulary.  ``hidden`` [n, d] -> [n, r] or None."""

    @abc.abstractmethod
    def chunk(self, projected: Tensor | None, weight: Tensor, lo: int, hi: int) -> Tensor:
        """Logits added to the vocabulary's slice lo:hi.  ``weight`` = W[lo:hi] [hi-lo, d] -> [n or 1, hi-lo]."""

    def logits_delta(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Logits added for ``hidden`` [n, d] under the head ``weight`` [V, d]: [n or 1, V], in the adapter's precision."""
        return self.chunk(self.project(hidden), weight, 0, weight.shape[0])

    @abc.abstractmethod
    def logits(self, hidden: Tensor, weight: Tensor, theta: Mapping[str, Tensor]) -> Tensor:
        """All logits as a function of the parameters in ``theta`` that automatic differentiation can follow (those not named there
        stay as they are).  ``hidden`` [n, d], ``weight`` [V, d] -> z [n, V].
        """

    # ------------------------------------------------------------------------------------------------------- θ as a value
    @property
    @abc.abstractmethod
    def theta(self) -> Delta:
        """Its parameters by name."""

    @abc.abstractmethod
    def at(self, theta: Mapping[str, Tensor]) -> Self:
        """The adapter with the parameters that ``theta`` names in the place of its own; shares their memory."""

    @classmethod
    @abc.abstractmethod
    def zero(cls, config: AdapterConfig, head: HeadPass, seed: int) -> Self | None:
        """The adapter of attempt 1, which changes no logit; None if its directions are still to be taken from the attempt."""

    def added_to(self, delta: Delta) -> Delta:
        """``delta``, into which θ was added in place: B has [V, r] numbers, and every copy of it is costly."""
        mine = self.theta
        for name, change in delta.items():
            change[..., : mine[name].shape[-1]] += mine[name]  # the columns that B lacks are zeros
        return delta

    def moved(self, delta: Mapping[str, Tensor], step: float = 1.0) -> Self:
        """θ + step·Δθ."""
        mine = self.theta
        return self.at(self.added_to({name: change.to(mine[name].dtype) * step for name, change in delta.items()}))

    def widened(self) -> Self:
        """The same adapter with every number of its parameters in memory."""
        return self

    @classmethod
    def with_room(cls, adapter: Self | None, head: HeadPass, rows: Tensor, moving: Tensor, config: AdapterConfig) -> Self:
        """``adapter`` with what it needs to be moved by this attempt; the same logits.

        Args:
            adapter: The one in force; None if :meth:`zero` gave none.
            head: The attempt.
            rows: Its tokens that are to move or to stay, indices [T'].
            moving: Those of them that are to move, [T'] bool.
            config: The size.
        """
        assert adapter is not None
        return adapter

    def truncated(self, max_rank: int) -> Self:
        """The nearest adapter of at most ``max_rank``; the same one if it is small enough."""
        return self

    @abc.abstractmethod
    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Self:
        """The same adapter elsewhere."""

    @abc.abstractmethod
    def head_shape(self, weight: Tensor) -> tuple[int, int]:
        """(V, d) of the heads it fits; what it says nothing of is taken from ``weight`` [V, d]."""

    # ------------------------------------------------------------------------------------------------------- derivatives
    @classmethod
    @abc.abstractmethod
    def free(cls, config: AdapterConfig) -> tuple[str, ...]:
        """The parameters that move."""

    @classmethod
    @abc.abstractmethod
    def needs(cls, adapter: Self | None, free: tuple[str, ...], kernel: Kernel = "none") -> dict[str, Any]:
        """Arguments of :meth:`HeadPass.moments` for :meth:`pull`, and for :meth:`kernel` or :meth:`kernel_diagonal`."""

    @abc.abstractmethod
    def kernel(self, head: HeadPass, moments: Moments, rows: Tensor, free: tuple[str, ...]) -> Tensor:
        """K̂ = Ĵ Ĵᵀ over the tokens ``rows`` [T'], [T', T'] float64."""

    @abc.abstractmethod
    def kernel_diagonal(self, head: HeadPass, moments: Moments, free: tuple[str, ...]) -> Tensor:
        """‖Ĵ_i‖² [T] float64, without T×T matrices."""

    @abc.abstractmethod
    def pull(self, head: HeadPass, moments: Moments, a: Tensor, free: tuple[str, ...]) -> Delta:
        """Ĵᵀa = Σ_i a_i ∂m_i/∂θ for the ``free`` parameters.  ``a`` [T] float64."""

    # ------------------------------------------------------------------------------------------------------- on disk
    @abc.abstractmethod
    def save(self, folder: Path) -> None:
        """Write it into ``folder``; the tensor file is renamed into place last, so that it is whole if it is there."""

    @classmethod
    @abc.abstractmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> Self:
        """What :meth:`save` wrote.

        Raises:
            StoreError: it cannot be read.
        """


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """A safetensors file, renamed into place."""
    part = path.with_name(path.name + ".part")
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(plain, part, {"format": "pt", **(metadata or {})})
    part.replace(path)


def read_tensors(path: Path, device: torch.device | str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            # Clones: a mapped file is not aligned as fresh memory is, and the BLAS rounds differently on it.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error

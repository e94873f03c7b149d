"""Adapters on the language-model head: one per session, swapped per row of a batch, captured from while acting.

Letters used by every module of the weights axis (ROSA, arXiv 2509.23166):

    T tokens · d hidden size · V vocabulary · r LoRA rank · s = lora_alpha / r
    H [T, d] what ``lm_head`` receives · W [V, d] the frozen head · A [r, d], B [V, r] the adapter · δ [d] the hidden-state shift

An adapter is an immutable value: an update makes a new one, so undoing an update is keeping the old one.  It acts on the
head's *output* only; with tied embeddings the input side therefore stays what it was, and the backbone is shared by all sessions.
"""

from __future__ import annotations

import abc
import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from envs.errors import PolicyError, StoreError

LORA_FILE = "adapter_model.safetensors"
SHIFT_FILE = "hidden_shift.safetensors"


class HeadAdapter(abc.ABC):
    """What one session adds to the logits of the shared head."""

    @property
    @abc.abstractmethod
    def rank(self) -> int:
        """Rank of the change of the logits as a function of h."""

    @property
    @abc.abstractmethod
    def nbytes(self) -> int:
        """Memory of the adapter's tensors, in bytes."""

    @abc.abstractmethod
    def project(self, hidden: Tensor) -> Tensor | None:
        """The part of the adapter's logits that does not depend on the vocabulary.  ``hidden`` [n, d] -> [n, r] or None."""

    @abc.abstractmethod
    def chunk(self, projected: Tensor | None, weight: Tensor, lo: int, hi: int) -> Tensor:
        """Logits added to the vocabulary's slice lo:hi.  ``weight`` = W[lo:hi] [hi-lo, d] -> [n or 1, hi-lo]."""

    @abc.abstractmethod
    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> HeadAdapter:
        """The same adapter elsewhere."""

    def logits_delta(self, hidden: Tensor, weight: Tensor) -> Tensor:
        """Logits added for ``hidden`` [n, d] under the head ``weight`` [V, d]: [n or 1, V], in the adapter's precision."""
        return self.chunk(self.project(hidden), weight, 0, weight.shape[0])


@dataclass(frozen=True, eq=False)
class LoRAHead(HeadAdapter):
    """z = W h + s·B A h.  ``A`` [r, d], ``B`` [V, r], ``scale`` s.  (ROSA App. D.5)

    ``B`` may lack its last columns: directions no update has used yet, whose zeros would be [V, k] of memory.
    """

    A: Tensor
    B: Tensor
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.B.ndim != 2 or self.A.shape[0] < self.B.shape[1]:
            raise PolicyError(f"A LoRA head needs A [r, d] and B [V, r], not {tuple(self.A.shape)} and {tuple(self.B.shape)}.")

    @property
    def rank(self) -> int:
        return self.A.shape[0]

    @property
    def nbytes(self) -> int:
        return self.A.nbytes + self.B.nbytes

    def project(self, hidden: Tensor) -> Tensor:
        return self.scale * (hidden.to(self.A.dtype) @ self.A.T)  # [n, r] = s·H Aᵀ

    def chunk(self, projected: Tensor | None, weight: Tensor, lo: int, hi: int) -> Tensor:
        assert projected is not None
        return projected[:, : self.B.shape[1]] @ self.B[lo:hi].T  # [n, hi-lo]

    def widened(self) -> LoRAHead:
        """The same adapter with all columns of B there."""
        missing = self.rank - self.B.shape[1]
        return self if missing == 0 else LoRAHead(self.A, nn.functional.pad(self.B, (0, missing)), self.scale)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> LoRAHead:
        return LoRAHead(self.A.to(device, dtype), self.B.to(device, dtype), self.scale)


@dataclass(frozen=True, eq=False)
class HiddenShift(HeadAdapter):
    """z = W (h + δ).  ``delta`` [d]."""

    delta: Tensor
    # W δ is the same at every step of an episode: computed at the first one, for the head it was computed with.
    _bias: dict[int, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.delta.ndim != 1:
            raise PolicyError(f"A hidden-state shift is one vector [d], not {tuple(self.delta.shape)}.")

    @property
    def rank(self) -> int:
        return 1

    @property
    def nbytes(self) -> int:
        return self.delta.nbytes

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

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> HiddenShift:
        return HiddenShift(self.delta.to(device, dtype))


@dataclass
class HeadTap:
    """The rows that :func:`head_hooks` adapts, and what the head received of them.

    Attributes:
        adapters: One per row of the next batch.
        hidden: One [b, d] tensor per call, the last position of every row.
    """

    adapters: list[HeadAdapter | None]
    hidden: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.groups = _row_groups(self.adapters)

    def keep(self, rows: Sequence[int]) -> None:
        """Of the next batches, only these rows are left, in this order."""
        self.adapters = [self.adapters[i] for i in rows]
        self.groups = _row_groups(self.adapters)


def _row_groups(adapters: Sequence[HeadAdapter | None]) -> list[tuple[HeadAdapter, list[int]]]:
    """Rows that share an adapter, in order of first appearance."""
    groups: dict[int, tuple[HeadAdapter, list[int]]] = {}
    for row, adapter in enumerate(adapters):
        if adapter is not None:
            groups.setdefault(id(adapter), (adapter, []))[1].append(row)
    return list(groups.values())


def _add_deltas(weight: Tensor, x: Tensor, logits: Tensor, groups: Sequence[tuple[HeadAdapter, list[int]]]) -> Tensor:
    """``logits`` [b, ..., V] plus each row's own delta, for the head's input ``x`` [b, ..., d]."""
    # In bf16 a logit near 20 moves in steps of 0.125: the sum is kept in float32, or small updates would be rounded away.
    wide = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits.clone()
    for adapter, rows in groups:
        index = torch.tensor(rows, device=x.device)
        hidden = x.index_select(0, index).to(weight.device)  # [k, ..., d]; spread over devices, x may come from another
        delta = adapter.logits_delta(hidden.reshape(-1, x.shape[-1]), weight).to(wide)  # [k·…, V] or [1, V]
        index = index.to(wide.device)
        delta = delta.expand(hidden.shape[:-1].numel(), -1).reshape(*hidden.shape[:-1], -1)
        wide[index] = wide[index] + delta
    return wide


@contextlib.contextmanager
def head_hooks(lm_head: nn.Linear, adapters: Sequence[HeadAdapter | None], *, capture: bool) -> Iterator[HeadTap]:
    """Adapt and observe the head while the block runs.

    Row i of every batch the head is called with gets the logits of ``adapters[i]`` (None: the frozen head), at every
    position, so that generation ([b, 1, d]) and teacher forcing ([b, T, d]) see the same policy.  With ``capture`` the
    tap collects what the head received at the last position of each call: while generating, exactly the rows of H.
    The hooks sit on the shared head: one block at a time, and no other caller of the model meanwhile.

    Raises:
        PolicyError: the model was called with another batch size than ``len(adapters)``.
    """
    tap = HeadTap(list(adapters))

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0]
        if x.shape[0] != (given := len(tap.adapters)):
            raise PolicyError(f"The head got a batch of {x.shape[0]} rows, but {given} adapters were given, one per row.")
        if capture:
            last = x[:, -1, :] if x.ndim == 3 else x
            tap.hidden.append(last.detach().clone())  # a clone: the view would keep the whole pass's activations alive

    def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        return _add_deltas(lm_head.weight, args[0], output, tap.groups) if tap.groups else None

    with contextlib.ExitStack() as stack:
        for handle in (lm_head.register_forward_pre_hook(before), lm_head.register_forward_hook(after)):
            stack.callback(handle.remove)
        yield tap


# -------------------------------------------------------------------------------------------------------------- on disk


def save_adapter(adapter: HeadAdapter, folder: Path) -> None:
    """Write an adapter into ``folder``; the tensor file is renamed into place last, so that it is whole if it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(adapter, LoRAHead):
        save_lora(folder, adapter)
    else:
        assert isinstance(adapter, HiddenShift)
        _write(folder / SHIFT_FILE, {"delta": adapter.delta})


def save_lora(folder: Path, adapter: LoRAHead) -> None:
    """PEFT's layout: ``PeftModel.from_pretrained(base, folder)`` gives the same logits on the plain base model.

    PEFT applies lora_alpha / r, so lora_alpha = s·r; the exact s is kept in the tensor file's metadata.
    """
    from peft import LoraConfig  # seconds of import that only saving needs

    alpha = adapter.scale * adapter.rank
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=int(alpha) if alpha == int(alpha) else alpha,  # type: ignore[arg-type]  # PEFT only ever divides it by r
        lora_dropout=0.0,
        target_modules=["lm_head"],
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    adapter = adapter.widened()
    names = {"A": "base_model.model.lm_head.lora_A.weight", "B": "base_model.model.lm_head.lora_B.weight"}
    _write(folder / LORA_FILE, {name: getattr(adapter, key) for key, name in names.items()}, {"scale": repr(adapter.scale)})


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    part = path.with_name(path.name + ".part")
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    save_file(plain, part, {"format": "pt", **(metadata or {})})
    part.replace(path)


def load_adapter(folder: Path, device: torch.device | str = "cpu") -> HeadAdapter:
    """What :func:`save_adapter` wrote.

    Raises:
        StoreError: there is no adapter in ``folder``, or it cannot be read.
    """
    lora, shift = folder / LORA_FILE, folder / SHIFT_FILE
    path = lora if lora.exists() else shift
    if not path.exists():
        raise StoreError(f"{folder} holds no adapter.", f"Expected {LORA_FILE} or {SHIFT_FILE} in it.")
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            # Clones: a mapped file is not aligned as fresh memory is, and the BLAS rounds differently on it.
            tensors = {name.rsplit("lora_", 1)[-1]: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            scale = (file.metadata() or {}).get("scale")
    except SafetensorError as error:
        raise StoreError(f"{path} cannot be read: {error}.") from error
    if path == shift:
        return HiddenShift(tensors["delta"])
    A, B = tensors["A.weight"], tensors["B.weight"]
    if A.shape[0] != B.shape[1]:
        raise StoreError(f"{path} holds A {tuple(A.shape)} and B {tuple(B.shape)}, which do not belong together.")
    if scale is None:  # written by PEFT itself
        scale = json.loads((folder / "adapter_config.json").read_text())["lora_alpha"] / A.shape[0]
    return LoRAHead(A, B, float(scale))

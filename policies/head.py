"""The shared head while it is used: one adapter per row of a batch, H captured from what it receives, and the logits that come of H."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from envs.errors import PolicyError
from policies.adapters.base import HeadAdapter

__all__ = ["HeadAdapter", "HeadTap", "head_hooks"]


@dataclass
class HeadTap:
    """The rows that :func:`head_hooks` adapts, and what the head received of them.

    Attributes:
        adapters: One per row of the next batch.
        hidden: One [b, d] tensor per call, the last position of every row; [m, d] of a packed call, all its positions.
    """

    adapters: list[HeadAdapter | None]
    hidden: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.groups = row_groups(self.adapters)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows in the next batches, in this order."""
        self.use([self.adapters[i] for i in rows])

    def use(self, adapters: Sequence[HeadAdapter | None]) -> None:
        """The rows of the next batch; the positions, if calls are packed."""
        self.adapters = list(adapters)
        self.groups = row_groups(self.adapters)


def row_groups(adapters: Sequence[HeadAdapter | None]) -> list[tuple[HeadAdapter, list[int]]]:
    """Rows that share an adapter, in order of first appearance."""
    groups: dict[int, tuple[HeadAdapter, list[int]]] = {}
    for row, adapter in enumerate(adapters):
        if adapter is not None:
            groups.setdefault(id(adapter), (adapter, []))[1].append(row)
    return list(groups.values())


HALF = (torch.bfloat16, torch.float16)
CHUNK = 8192


def wide_logits(weight: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """W h, and ``bias`` [V] if there is one, in float32, [..., V], of half-precision ``weight`` [V, d] and ``x`` [..., d].

    In bf16 a logit near 20 is one of few numbers, 0.125 apart: the most probable tokens would often tie.
    """
    flat = x.reshape(-1, x.shape[-1]).to(weight.device)
    if weight.is_cuda:  # accumulated in float32 and left so, without a wide copy of W
        logits = torch.mm(flat, weight.T, out_dtype=torch.float32)
    else:
        logits = torch.cat([flat.float() @ part.float().T for part in weight.split(CHUNK)], dim=1)
    if bias is not None:
        logits += bias
    return logits.reshape(*x.shape[:-1], -1)


def add_deltas(weight: Tensor, x: Tensor, logits: Tensor, groups: Sequence[tuple[HeadAdapter, list[int]]]) -> Tensor:
    """``logits`` [b, ..., V] plus each row's own delta, for the head's input ``x`` [b, ..., d]."""
    # The sum is kept in float32, or small updates would be rounded away.
    wide = logits.float() if logits.dtype in HALF else logits.clone()
    for adapter, rows in groups:
        index = torch.tensor(rows, device=x.device)
        hidden = x.index_select(0, index).to(weight.device)  # [k, ..., d]; spread over devices, x may come from another
        delta = adapter.logits_delta(hidden.reshape(-1, x.shape[-1]), weight).to(wide)  # [k·…, V] or [1, V]
        index = index.to(wide.device)
        delta = delta.expand(hidden.shape[:-1].numel(), -1).reshape(*hidden.shape[:-1], -1)
        wide[index] = wide[index] + delta
    return wide


@contextlib.contextmanager
def head_hooks(
    lm_head: nn.Linear, adapters: Sequence[HeadAdapter | None], *, capture: bool, packed: bool = False
) -> Iterator[HeadTap]:
    """Adapt and observe the head while the block runs.

    Row i of every batch the head is called with gets the logits of ``adapters[i]`` (None: the frozen head), at every
    position, so that generation ([b, 1, d]) and teacher forcing ([b, T, d]) see the same policy.  With ``capture`` the
    tap collects what the head received at the last position of each call: while generating, exactly the rows of H.  ``packed``: calls
    are of one row [1, m, d] whose positions are of different sessions; what is said of rows holds for its positions.
    The hooks sit on the shared head: one block at a time, and no other caller of the model meanwhile.

    Raises:
        PolicyError: the model was called with another batch size than ``len(adapters)``.
    """
    tap = HeadTap(list(adapters))

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        x = args[0][0] if packed else args[0]
        if x.shape[0] != (given := len(tap.adapters)):
            raise PolicyError(f"The head got a batch of {x.shape[0]} rows, but {given} adapters were given, one per row.")
        if capture:
            last = x[:, -1, :] if x.ndim == 3 else x
            tap.hidden.append(last.detach().clone())  # a clone: the view would keep the whole pass's activations alive

    def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        half = output.dtype in HALF
        logits = wide_logits(lm_head.weight, args[0], lm_head.bias) if half else output
        if tap.groups:
            x, flat = (args[0][0], logits[0]) if packed else (args[0], logits)
            return add_deltas(lm_head.weight, x, flat, tap.groups).reshape(logits.shape)
        return logits if half else None

    with contextlib.ExitStack() as stack:
        for handle in (lm_head.register_forward_pre_hook(before), lm_head.register_forward_hook(after)):
            stack.callback(handle.remove)
        yield tap


class _Given:
    """What a model's body returns: H, and nothing else that its class may ask for."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> Tensor:
        return self.last_hidden_state

    def __getattr__(self, name: str) -> None:
        return None


def own_logits(model: Any, hidden: Tensor) -> Tensor:
    """The model's own logits [n, V] where its head receives ``hidden`` [n, d]: with the bias, cap or scale that it has after W h.

    Its class computes them, from a body that returns ``hidden`` at once; no other caller of the model meanwhile.
    """
    body = model.model
    before = vars(body).get("forward")  # accelerate has put one of its own there
    body.forward = lambda *_, **__: _Given(hidden[None])
    try:
        logits: Tensor = model(use_cache=False).logits[0]
    finally:
        del body.forward
        if before is not None:
            body.forward = before
    return logits


NOT_PLAIN = (
    "This model's logits are not W h alone: it adds a bias to them, caps or scales them.",
    "Its weights cannot be adapted: use another model, or adapt.weights.method=none.",
)


PROBE = 1000.0
"""The largest logit that a head is tried with: a cap of that size would show."""
PRECISION = 0.02
"""By how much two ways to the same logits may differ, of the largest: bf16 has steps of 1/256."""


@torch.no_grad()
def is_plain(weight: Tensor, compute: Callable[[Tensor], Tensor]) -> bool:
    """Whether logits are W h alone, as all that is derived for adapters and updates takes them to be: no bias, cap or scale.

    Args:
        weight: W [V, d].
        compute: The model's own way from H [n, d] to logits [n, V].
    """
    h = torch.randn(1, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    h *= PROBE / nn.functional.linear(h, weight).float().abs().max().clamp_min(1e-3)
    rows = torch.cat([torch.zeros_like(h), h])  # [2, d]: after zeros a bias is left
    found, expected = compute(rows).float(), nn.functional.linear(rows, weight).float()
    if found.shape != expected.shape or bool(found[0].any()):
        return False
    return torch.allclose(found, expected.to(found.device), rtol=0, atol=PRECISION * PROBE)

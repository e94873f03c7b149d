"""What a server with the weights axis and its clients say to each other: one safetensors file per message.

Tensors travel as tensors; everything else is one JSON object in the file's metadata, under ``agentlab``.  Nothing in a message is ever
executed or taken for a path.  Both sides import this module, the server's inside vLLM's environment: torch, safetensors and what is here.

T tokens of a reply · n tokens of a prompt · d hidden size · V vocabulary · r rank
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

PROTOCOL = 2
"""Raised when one side would misunderstand the other, or leave out what it is asked for."""

PREFIX = "/agentlab/v1"
MEDIA = "application/vnd.safetensors"
TOKEN_VARIABLE = "AGENTLAB_SERVE_TOKEN"

MOST_HEADER = 16 * 2**20
"""Bytes of a message's header: names and shapes of its tensors, and its JSON."""
MOST_IMAGES = 64
"""Pictures of one prompt."""
LORA, HIDDEN = "lora", "hidden"
KINDS = {LORA: ("A", "B"), HIDDEN: ("delta",)}
"""Adapters that a server knows, and their tensors."""
DRAWING = {
    "temperature": (0, 1e6, 0.0), "top_p": (1e-6, 1, 1.0), "frequency_penalty": (-1e6, 1e6, 0.0), "repetition_penalty": (1e-6, 1e6, 1.0),
}  # fmt: skip
"""How a reply is drawn, besides its length: the settings that a request carries, as ``SamplingConfig`` names them; least, most, default."""
PEFT_NAMES = {"base_model.model.lm_head.lora_A.weight": "A", "base_model.model.lm_head.lora_B.weight": "B"}


Unpacked = tuple[dict[str, Any], dict[str, Tensor]]
"""Fields and tensors of a message."""


class WireError(ValueError):
    """A message is not what this protocol says."""


def pack(fields: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """A message of JSON-serialisable ``fields`` and tensors."""
    plain = {name: value.detach().cpu().contiguous() for name, value in (tensors or {}).items()}
    data: bytes = save(plain, {"agentlab": json.dumps(dict(fields))})
    return data


def unpack(data: bytes) -> Unpacked:
    """Fields and tensors of a message.

    Raises:
        WireError: it is not one.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        if not 2 <= size <= min(MOST_HEADER, len(data) - 8):
            raise WireError("The message is not a safetensors file.")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
        fields = json.loads(metadata.get("agentlab", "{}"))
        tensors = load(data)
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise error if isinstance(error, WireError) else WireError(f"The message cannot be read: {error}.") from error
    if not isinstance(fields, dict):
        raise WireError("The message's fields are not a JSON object.")
    if "scale" in metadata and "scale" not in fields:  # a file that LoRAHead.save wrote
        fields["scale"] = metadata["scale"]
    return fields, tensors


@dataclass(frozen=True)
class Theta:
    """An adapter as it travels: its kind, its tensors, and s of a LoRA head."""

    kind: str
    tensors: dict[str, Tensor]
    scale: float = 1.0

    def packed(self, prefix: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
        return {"kind": self.kind, "scale": self.scale}, {prefix + name: value for name, value in self.tensors.items()}


def theta_of(fields: Mapping[str, Any], tensors: Mapping[str, Tensor], shape: tuple[int, int], prefix: str = "") -> Theta:
    """The adapter in a message, checked against the head's ``shape`` (V, d).  Also takes what PEFT writes for ``lm_head``.

    Raises:
        WireError: it is none, or one for another head.
    """
    mine = {PEFT_NAMES.get(name, name.removeprefix(prefix)): value for name, value in tensors.items() if name.startswith(prefix)}
    kind = fields.get("kind") or (HIDDEN if "delta" in mine else LORA)
    if kind not in KINDS or any(name not in mine for name in KINDS[kind]):
        raise WireError(f"The message holds no adapter: {' or '.join('+'.join(names) for names in KINDS.values())} expected.")
    try:
        scale = float(fields.get("scale", 1.0))
    except (TypeError, ValueError) as error:
        raise WireError("The adapter's scale is not a number.") from error
    found = {name: mine[name] for name in KINDS[kind]}
    if not all(value.is_floating_point() and bool(torch.isfinite(value).all()) for value in found.values()) or scale * 0 != 0:
        raise WireError("The adapter holds NaN or Inf, or no floating-point numbers.")
    V, d = shape
    if kind == LORA:
        A, B = found["A"], found["B"]
        if A.ndim != 2 or B.ndim != 2 or A.shape[1] != d or B.shape[0] != V or B.shape[1] > A.shape[0]:
            raise WireError(f"A {tuple(A.shape)} and B {tuple(B.shape)} do not fit a head of V={V}, d={d}.")
    elif found["delta"].shape != (d,):
        raise WireError(f"A shift {tuple(found['delta'].shape)} does not fit a head of d={d}.")
    return Theta(kind, found, scale)


def digest_of(picture: Tensor) -> str:
    """Name of a picture [height, width, 3] by what is in it."""
    digest = hashlib.blake2b(repr(tuple(picture.shape)).encode(), digest_size=16)
    digest.update(picture.contiguous().numpy().tobytes())
    return digest.hexdigest()


def integer(fields: Mapping[str, Any], name: str, low: int, high: int, default: int | None = None) -> int:
    """A whole number of a message, within bounds.

    Raises:
        WireError: it is missing, no whole number, or out of bounds.
    """
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise WireError(f"{name} must be a whole number from {low} to {high}.")
    return value


def number(fields: Mapping[str, Any], name: str, low: float, high: float, default: float) -> float:
    """A number of a message, within bounds.

    Raises:
        WireError: it is no number, or out of bounds.
    """
    value = fields.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise WireError(f"{name} must be a number from {low} to {high}.")
    return float(value)


def ids_of(tensors: Mapping[str, Tensor], name: str, vocabulary: int, most: int) -> list[int]:
    """Token ids [n] of a message, at least one.

    Raises:
        WireError: they are missing, too many, or not of the vocabulary.
    """
    value = tensors.get(name)
    if value is None or value.ndim != 1 or value.is_floating_point() or not 0 < len(value) <= most:
        raise WireError(f"{name} must be 1 to {most} token ids.")
    if int(value.min()) < 0 or int(value.max()) >= vocabulary:
        raise WireError(f"{name} holds an id outside the vocabulary of {vocabulary}.")
    return [int(one) for one in value.tolist()]

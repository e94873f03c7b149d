"""The bundled policy with heads of 64 dimensions instead of 48: the same function, for engines whose kernels have no 48 (vLLM's).

Every width grows by a third, and what is new is zero.  Three things need a factor so that nothing else changes: an RMS norm over 256
channels of which 64 are zero divides by a smaller mean (its weights and epsilon are scaled), attention divides by √64 instead of √48 (the
queries are scaled), and the rotary positions still turn the first 48 dimensions of a head only (``partial_rotary_factor``).  And the
vision tower's silu becomes quick_gelu, the only one that vLLM's has: silu(x) = 1.702 quick_gelu(x / 1.702).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from envs.errors import PolicyError

WIDE = 64
QUICK = 1.702
"""quick_gelu(x) = x sigmoid(1.702 x)."""


def save_wide(source: Path, folder: Path) -> Path:
    """Write the widened checkpoint of ``source`` into ``folder``, which it makes; ``folder``.

    Raises:
        PolicyError: it is not the bundled policy's architecture.
    """
    config: dict[str, Any] = json.loads((source / "config.json").read_text(encoding="utf-8"))
    text, vision = config["text_config"], config["vision_config"]
    d, heads = text["hidden_size"], text["num_attention_heads"]
    narrow = d // heads
    wide_d = heads * WIDE
    share = d / wide_d  # of the channels that are not zero
    weights = {name: value.float() for name, value in load_file(source / "model.safetensors").items()}
    out = {name: _widened(name, value, d, wide_d, narrow, share) for name, value in weights.items()}
    text |= {"hidden_size": wide_d, "rms_norm_eps": text["rms_norm_eps"] * share}
    text["rope_parameters"] |= {"partial_rotary_factor": narrow / WIDE, "rope_type": "default", "type": "mrope"}
    if vision["hidden_act"] != "silu":
        raise PolicyError(f"The vision tower of {source} computes {vision['hidden_act']}, not silu.")
    vision |= {"hidden_size": wide_d, "hidden_act": "quick_gelu"}
    config["dtype"] = text["dtype"] = vision["dtype"] = "float32"
    folder.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix in (".json", ".jinja"):
            shutil.copy(path, folder / path.name)
    save_file(out, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return folder


def _widened(name: str, value: Tensor, d: int, wide_d: int, narrow: int, share: float) -> Tensor:
    if name.startswith("visual.") or ".visual." in name:
        if ".mlp.fc1." in name:
            return value / QUICK
        if ".mlp.fc2.weight" in name:
            return value * QUICK
        return _padded(value, 0, wide_d - d) if "merger.mlp.2" in name else value  # what it hands to the language model
    if "norm" in name.rpartition(".weight")[0].rpartition(".")[2]:
        return _padded(value * share**0.5, 0, wide_d - d)
    part = name.split(".")[-2]
    if part in ("q_proj", "k_proj", "v_proj"):
        value = _by_head(value, 0, narrow) * ((WIDE / narrow) ** 0.5 if part == "q_proj" else 1.0)
    if part == "o_proj":
        return _padded(_by_head(value, 1, narrow), 0, wide_d - d)
    if part == "down_proj":
        return _padded(value, 0, wide_d - d)
    return value if value.ndim == 1 else _padded(value, 1, wide_d - d)  # what reads the residual stream; embeddings and head


def _padded(value: Tensor, dim: int, more: int) -> Tensor:
    return nn.functional.pad(value, (0, 0) * (value.ndim - 1 - dim) + (0, more)).contiguous()


def _by_head(value: Tensor, dim: int, narrow: int) -> Tensor:
    """Each head's dimensions along ``dim`` padded from ``narrow`` to :data:`WIDE`."""
    parts = value.unflatten(dim, (-1, narrow))
    return torch.flatten(_padded(parts, dim + 1, WIDE - narrow), dim, dim + 1)

"""A checkpoint's small files: all that a client needs to write prompts and read replies; never its weights.  Both sides import this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from policies.served.wire import WireError

NAMES = (
    "config.json", "generation_config.json", "agentlab.json", "preprocessor_config.json", "processor_config.json",
    "video_preprocessor_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.json", "chat_template.jinja", "tokenizer.model",
)  # fmt: skip
MOST_BYTES = 256 * 2**20


def small_files(source: str) -> dict[str, Tensor]:
    """The small files of a folder, or of a hub id that has been downloaded: bytes by name."""
    folder = Path(source)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(source, allow_patterns=list(NAMES), local_files_only=True))
    found = {name: folder / name for name in NAMES if (folder / name).is_file()}
    return {name: torch.from_numpy(np.frombuffer(path.read_bytes(), dtype=np.uint8).copy()) for name, path in found.items()}


def write_files(files: Mapping[str, Tensor], folder: Path) -> None:
    """Write what :func:`small_files` gave; names that are not such files' are left out.

    Raises:
        WireError: they are too large, or not bytes.
    """
    if sum(value.numel() for value in files.values()) > MOST_BYTES or any(v.dtype != torch.uint8 for v in files.values()):
        raise WireError("The server's checkpoint files are too large, or not files.")
    for name in NAMES:
        if name in files:
            (folder / name).write_bytes(files[name].numpy().tobytes())

"""Tokens of attempts as bytes: what a session leaves, and what a round holds of all its sessions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agentlab.disk.files import LARGEST, read_bytes
from envs.errors import StoreError

if TYPE_CHECKING:
    from policies.prior.step import Rows


def to_bytes(parts: Sequence[Rows | None], largest: int = LARGEST) -> bytes:
    """The rows of several sessions, by place; b"" if there are none.

    Where that is more than ``largest`` bytes, which no run reads again, every session keeps fewer, those that solved it first.
    """
    data = _packed(parts)
    most = max((len(rows) for rows in parts if rows is not None), default=0)
    while len(data) > largest and most > 1:
        most //= 2
        data = _packed([None if rows is None else rows.most(most) for rows in parts])
    return data


def _packed(parts: Sequence[Rows | None]) -> bytes:
    import torch
    from safetensors.torch import save

    from policies.prior.step import Rows

    there = [(place, rows) for place, rows in enumerate(parts) if rows is not None]
    if not there:
        return b""
    joined = Rows.joined([rows for _, rows in there])
    sessions = torch.cat([torch.full((len(rows),), place) for place, rows in there])
    tensors = {**vars(joined), "sessions": sessions}
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, {"format": "pt"})


def from_file(path: Path, root: Path) -> Mapping[int, Rows]:
    """The rows of each session that has some, by place.

    Raises:
        StoreError: they cannot be read, or are not rows.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from policies.prior.step import Rows

    data = read_bytes(path, root)
    if not data:
        return {}
    try:
        found = {name: tensor.clone() for name, tensor in load(data).items()}
        sessions = found.pop("sessions")
        rows = Rows(**found)
        kinds = {
            "hidden": torch.float32,
            "tokens": torch.int64,
            "rewards": torch.float64,
            "replies": torch.int64,
            "ends": torch.bool,
        }
        if any(getattr(rows, name).dtype != kind for name, kind in kinds.items()) or rows.hidden.ndim != 2:
            raise ValueError("not rows")
        if len({len(tensor) for tensor in (*found.values(), sessions)}) != 1 or sessions.dtype != torch.int64:
            raise ValueError("their lengths differ")
        if not bool(torch.isfinite(rows.hidden).all()) or not set(rows.rewards.tolist()) <= {1.0, -1.0}:
            raise ValueError("numbers that cannot be")
        return {int(place): rows.at(sessions == place) for place in sessions.unique().tolist()}
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is corrupt: {error}.", "Restore it, or name another directory.") from error

"""Episodes of the experts on disk: one compressed ``.npz`` per shard, no pickles, read and written whole.

A *screen* is one step: what was seen, and what the expert said about it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from envs import actions as act


@dataclass
class Screen:
    """One step of an expert's episode.

    Attributes:
        task, seed, index: Which instance, and the 0-based step.
        instruction: The task's instruction.
        thought, action: What the expert said; the action in pixels, on the grid that replies can express.
        box: {"x", "y", "w", "h"} of the target in pixels, if the action has one.
        png: The screenshot.
        characters: [n, 3] uint8: x, y, code of every visible character.
        unread: [m, 4] int16: x, y, w, h of areas whose text is not in ``characters``.
    """

    task: str
    seed: int
    index: int
    instruction: str
    thought: str
    action: act.Action
    box: dict[str, float] | None
    png: bytes
    characters: NDArray[np.uint8] = field(repr=False)
    unread: NDArray[np.int16] = field(repr=False)

    def pixels(self) -> NDArray[np.uint8]:
        """[H, W, 3] uint8 RGB."""
        with Image.open(io.BytesIO(self.png)) as image:
            return np.asarray(image.convert("RGB"))


Episode = list[Screen]


def write_shard(path: Path, episodes: Iterable[Episode]) -> None:
    """Write a shard in one go: under a temporary name, then renamed."""
    screens = [screen for episode in episodes for screen in episode]
    meta: list[dict[str, Any]] = [
        {
            "task": s.task, "seed": s.seed, "index": s.index, "instruction": s.instruction, "thought": s.thought,
            "action": act.to_json(s.action), "box": s.box,
        }
        for s in screens
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(
            file,
            meta=np.frombuffer(json.dumps(meta).encode(), np.uint8),
            png=np.frombuffer(b"".join(s.png for s in screens), np.uint8),
            png_ends=np.cumsum([len(s.png) for s in screens], dtype=np.int64),
            characters=np.concatenate([np.empty((0, 3), np.uint8), *(s.characters.reshape(-1, 3) for s in screens)]),
            characters_ends=np.cumsum([len(s.characters) for s in screens], dtype=np.int64),
            unread=np.concatenate([np.empty((0, 4), np.int16), *(s.unread.reshape(-1, 4) for s in screens)]),
            unread_ends=np.cumsum([len(s.unread) for s in screens], dtype=np.int64),
        )
    temporary.replace(path)


def read_shard(path: Path) -> list[Episode]:
    """The episodes of a shard, each in step order."""
    with np.load(path, allow_pickle=False) as data:
        meta = json.loads(bytes(data["meta"]))
        png = _split(data["png"], data["png_ends"])
        characters = _split(data["characters"], data["characters_ends"])
        unread = _split(data["unread"], data["unread_ends"])
    episodes: dict[tuple[str, int], Episode] = {}
    for fields, raw, chars, areas in zip(meta, png, characters, unread, strict=True):
        fields["action"] = act.from_json(fields["action"])
        screen = Screen(**fields, png=raw.tobytes(), characters=chars, unread=areas)
        episodes.setdefault((screen.task, screen.seed), []).append(screen)
    return [sorted(episode, key=lambda s: s.index) for episode in episodes.values()]


def _split(values: NDArray[Any], ends: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    start = 0
    for end in ends.tolist():
        yield values[start:end]
        start = end

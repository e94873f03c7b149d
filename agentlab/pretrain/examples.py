"""From expert episodes on disk to training examples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from agentlab.pretrain.collect import HELD_SEED_START, RESERVED_SEED_START
from agentlab.pretrain.shards import Episode, read_shard
from policies.nano.data import Example
from policies.nano.replies import reply_text


def examples(episode: Episode, guidance: str = "") -> list[Example]:
    """One example per step, each with the replies before it."""
    replies = [reply_text(screen.thought, screen.action) for screen in episode]
    return [
        Example(
            task=screen.task, instruction=screen.instruction, history=replies[:i], thought=screen.thought, action=screen.action,
            png=screen.png, box=screen.box, characters=screen.characters, unread=screen.unread, guidance=guidance,
        )
        for i, screen in enumerate(episode)
    ]  # fmt: skip


class ExampleLibrary:
    """The episodes collected so far; :meth:`refresh` picks up files that were written since."""

    def __init__(self, folder: Path, tasks: Sequence[str]) -> None:
        self.folder, self.tasks = folder, list(tasks)
        self.train: dict[str, list[Episode]] = {task: [] for task in tasks}
        self.reserved: dict[str, list[Episode]] = {task: [] for task in tasks}
        self.held: dict[str, list[Episode]] = {task: [] for task in tasks}
        self.examples: dict[str, list[Example]] = {task: [] for task in tasks}
        self._read: set[Path] = set()

    def refresh(self) -> dict[str, list[Example]]:
        """Training examples by task."""
        for task in self.tasks:
            for path in sorted((self.folder / task).glob("*.npz")):
                if path in self._read:
                    continue
                self._read.add(path)
                episodes = read_shard(path)
                if int(path.stem) >= HELD_SEED_START:
                    self.held[task] += episodes
                elif int(path.stem) >= RESERVED_SEED_START:
                    self.reserved[task] += episodes
                else:
                    self.train[task] += episodes
                    self.examples[task] += [example for episode in episodes for example in examples(episode)]
        return self.examples

    def texts(self) -> dict[str, list[str]]:
        """Instructions and thoughts by task: the corpus of the tokenizer."""
        return {task: [*_lines(self.train[task]), *_lines(self.held[task])] for task in self.tasks}


def _lines(episodes: Iterable[Episode]) -> list[str]:
    return [line for episode in episodes for line in (episode[0].instruction, *(screen.thought for screen in episode))]

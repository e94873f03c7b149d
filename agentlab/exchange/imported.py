"""What an importer says of the results that it has made a run of (:attr:`envs.benchmark.Benchmark.importer`)."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Imported:
    """What was imported.

    Attributes:
        tasks: Task directories found.
        graded: Those with a score; the others did not finish, or were ended by the machinery.
        solved: Those with the full score.
        remarks: What was incomplete, missing or unexpected.
    """

    tasks: int = 0
    graded: int = 0
    solved: int = 0
    remarks: list[str] = field(default_factory=list)

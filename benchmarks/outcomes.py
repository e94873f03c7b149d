"""What every method came to at every instance, one JSON line each: all tables are computed from these, and can be by anybody else.

A line has ``method``, ``seed`` (of the run), ``repeat``, ``task`` (the instance), ``name`` (its task or family: the cluster), ``key``
(equal for equal questions), ``solved_at`` (attempt, 0: never), ``ended`` (``solved``, ``failed`` or ``machinery``) and lists with one
number per attempt made: ``forward`` and ``prefill`` (rows of the model's calls), ``tokens``, ``replies``, ``unparsable``, ``redrawn``,
``repeats`` (1: the actions of an earlier attempt again), ``update`` (1 accepted, 0 refused, null: none), ``theorem`` (‖R‖ and
‖Δθ‖² in the attempt's own context, then both under the refined one; null: not measured).  The lists of the method
``first`` are of attempt 1, which all methods share; those of every other method begin with attempt 2.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentlab.disk.row import Row

FIRST = "first"


@dataclass(frozen=True)
class Outcome:
    """One method at one instance; see the module."""

    method: str
    seed: int
    task: str
    name: str
    key: str
    solved_at: int
    ended: str
    repeat: int = 1
    forward: list[int] = field(default_factory=list)
    prefill: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    replies: list[int] = field(default_factory=list)
    unparsable: list[int] = field(default_factory=list)
    redrawn: list[int] = field(default_factory=list)
    repeats: list[int] = field(default_factory=list)
    update: list[int | None] = field(default_factory=list)
    theorem: list[list[float] | None] = field(default_factory=list)

    @property
    def instance(self) -> tuple[int, str, int]:
        """(run seed, task, repeat): what methods are paired by."""
        return self.seed, self.task, self.repeat

    def within(self, k: int) -> bool:
        """Solved at an attempt <= k."""
        return 0 < self.solved_at <= k


def outcome(method: str, seed: int, key: str, rows: Sequence[Row], *, first: bool = False) -> Outcome:
    """The outcome of a session that is over.  ``rows``: all its attempts, in order."""
    made = [r for r in rows if r.graded and (first or r.attempt > 1)]
    solved = next((r.attempt for r in rows if r.graded and r.success), 0)
    seen, repeats = {r.actions_hash for r in rows if r.graded and r.attempt == 1}, []
    for row in made:
        repeats.append(int(row.attempt > 1 and row.actions_hash in seen))
        seen.add(row.actions_hash)
    return Outcome(
        method=method,
        seed=seed,
        task=rows[0].task,
        name=rows[0].name,
        key=key,
        solved_at=solved,
        ended="solved" if solved else "failed" if rows[-1].graded else "machinery",
        repeat=getattr(rows[0], "repeat", 1),
        forward=[_passes(r)[0] for r in made],
        prefill=[_passes(r)[1] for r in made],
        tokens=[r.tokens for r in made],
        replies=[r.steps for r in made],
        unparsable=[r.unparsable for r in made],
        redrawn=[r.redrawn for r in made],
        repeats=repeats,
        update=[None if r.update is None else int(r.update.accepted) for r in made],
        theorem=[_theorem(r) for r in made],
    )


def _theorem(row: Row) -> list[float] | None:
    """ROSA2 Theorem 4.1's two error terms, raw and refined; None if the update did not measure them."""
    numbers = row.update.numbers if row.update is not None else {}
    terms = [numbers.get(context, {}).get(name) for context in ("raw", "refined") for name in ("residual", "delta_norm2")]
    return None if any(value is None for value in terms) else [float(f"{value:.6g}") for value in terms]


def _passes(row: Row) -> tuple[int, int]:
    """(forward passes, those of them that read a prompt) of an attempt; of a policy that does not count, one per token and per reply."""
    return (row.forward_passes, row.prefills) if row.forward_passes else (row.tokens, row.steps + row.redrawn)


def read(path: Path) -> list[Outcome]:
    """All outcomes of a file; none if there is no such file."""
    if not path.exists():
        return []
    return [Outcome(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def write(path: Path, outcomes: Iterable[Outcome]) -> None:
    """Write outcomes, sorted, so that the same outcomes are the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(compact(o), ensure_ascii=False, separators=(",", ":")) for o in outcomes]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def compact(one: Outcome) -> dict[str, Any]:
    """As it is written: without lists of zeros, which say nothing."""
    return {k: v for k, v in asdict(one).items() if k not in SPARSE or any(v)}


SPARSE = {"unparsable", "redrawn", "repeats", "theorem"}
"""Lists that are left out of a line where all they hold is 0 or null."""

"""Does experience help?  One stream of sessions under four settings, paired: frozen, words, weights, both.

    python benchmarks/experience.py --out DIR                                       # 480 sessions of 12 families of `reasoning`
    python benchmarks/experience.py --out DIR --seed 1 --limit 160 --rows weights   # tuning: other seeds, shorter
    python benchmarks/experience.py --out DIR --suite miniwob --policy ui-tars-nano --tasks "" --held-out ""
    python benchmarks/experience.py --out DIR --set experience.weights.beta=0.5     # settings of all rows with experience

Every row is a run of its own (`agentlab view DIR` shows them); the same command continues, and once frozen is made, several commands may
make other --rows side by side.  Beside the stream: *forgetting*, its first
sessions once more at its end, and *transfer*, task names that the stream does not have, both reading the final experience and adding
nothing, both paired with the frozen policy.  Settings must have been fixed on seeds that are not reported.

Writes ``DIR/experience.json`` and ``DIR/experience.md``; with ``--publish NAME`` also ``benchmarks/results/NAME.json``, of which
``benchmarks/report.py`` makes its tables.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from comparison import commit
from options import RESULTS, command_line

from agentlab.disk.runs import read_run
from agentlab.experience.config import ExperienceConfig
from agentlab.results.compare import compare
from agentlab.results.metrics import SessionSummary
from agentlab.results.pages import markdown
from agentlab.results.stream import attempts_per_solved, gain, halves
from agentlab.run.config import RunConfig
from agentlab.run.parts import plan
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner

STREAM = (
    "calendar_arithmetic,coin_flip,color_cube_rotation,count_bits,family_relationships,gcd,isomorphic_strings,leg_counting,"
    "letter_counting,number_sequence,syllogism,word_sorting"
)
HELD_OUT = "count_primes,lcm,spell_backward,time_intervals"
OFF = "experience.weights.scope=none"
NO_WORDS = ("experience.lessons=0", "experience.examples=0")
ROWS: dict[str, tuple[str, ...] | None] = {
    "frozen": None,
    "words": (OFF,),
    "weights": NO_WORDS,
    "both": (),
}
"""Settings of each row; None: no experience."""
AGAIN = 64
"""Sessions of the stream that are made once more at its end, and sessions of unseen task names; one attempt each."""


class Stream:
    """The runs of one stream."""

    def __init__(
        self, out: Path, suite: str, policy: str, seed: int, attempts: int, sets: Sequence[str], workers: int | None
    ) -> None:
        self.out, self.suite, self.policy, self.seed = out, suite, policy, seed
        self.attempts, self.sets, self.workers = attempts, list(sets), workers

    def config(self, name: str, row: str, tasks: str, limit: int, *more: str) -> RunConfig:
        """The run ``name`` under the settings of a row."""
        flags: dict[str, Any] = {
            "suite": self.suite, "policy": self.policy, "seed": self.seed, "attempts": self.attempts, "limit": limit,
            "tasks": tasks.split(",") if tasks else None, "out": self.out / name, "workers": self.workers,
            "adapt": {"preset": "no-repeat"},
        }  # fmt: skip
        shared = ["sampling.first_greedy=true", *(text for text in self.sets if not text.startswith("experience."))]
        settings = ROWS[row]
        if settings is None:
            return resolve(flags, sets=shared)
        flags["experience"] = {"dir": self.out / f"{row}-experience"}
        # Who writes lessons by itself must write well: a small model's lessons are worse than none.
        own = ["experience.engine=rules", *settings, *(text for text in self.sets if text.startswith("experience.")), *more]
        return resolve(flags, sets=[*shared, *own])

    def run(self, name: str, row: str, tasks: str, limit: int, *more: str) -> Path:
        """Make the run, or the rest of it; its folder."""
        typer.echo(f"{name}: {limit} sessions")
        config = self.config(name, row, tasks, limit, *more)
        done = [0]

        def told(made: Any) -> None:
            done[0] += 1
            if done[0] == 1:
                self._note(name)
            if done[0] % 50 == 0:
                typer.echo(f"  {done[0]} attempts")

        Runner(config, on_row=told, say=typer.echo).run()
        return config.folder

    def again(self, name: str, row: str, tasks: str, limit: int, *more: str) -> Path:
        """As :meth:`run`, one attempt per session: what is asked is how a session begins."""
        whole, self.attempts = self.attempts, 1
        try:
            return self.run(name, row, tasks, limit, *more)
        finally:
            self.attempts = whole

    def _note(self, name: str) -> None:
        """Keep the commits that a run was made by, in ``commits.NAME``: rows may be made side by side."""
        path = self.out / f"commits.{name}"
        found = path.read_text(encoding="utf-8").split() if path.exists() else []
        if commit() not in found:
            self.out.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([*found, commit()]) + "\n", encoding="utf-8")

    def commits(self) -> list[str]:
        """Those that any of the runs were made by."""
        return sorted({word for path in self.out.glob("commits.*") for word in path.read_text(encoding="utf-8").split()})


def solved_at(found: Sequence[SessionSummary]) -> list[int]:
    """By which attempt each session was solved, 0: not."""
    return [s.solved_at or 0 for s in found]


FREQUENT = "most frequent answer"


def most_frequent(first: Sequence[SessionSummary], right: Sequence[str], every: int) -> list[SessionSummary]:
    """The frozen sessions, had they begun with the answer that was right most often in their family: what a bias alone can learn.

    It knows what experience knows, the answers of sessions that were solved, round by round; it is used in a family once it has done
    better there than the policy's own first attempts.

    Args:
        first: The frozen sessions, in the order of the stream.
        right: Their right answers.
        every: Sessions of a round.
    """
    known: dict[str, Counter[str]] = defaultdict(Counter)
    better: Counter[str] = Counter()  # by how many first attempts in a family
    found = []
    for start in range(0, len(first), every):
        ended = list(zip(first[start : start + every], right[start : start + every], strict=True))
        hits = [bool(known[s.name]) and known[s.name].most_common(1)[0][0] == answer for s, answer in ended]
        for (s, _), hit in zip(ended, hits, strict=True):
            at_first = hit if better[s.name] > 0 else s.solved_at == 1
            found.append(replace(s, solved_at=1 if at_first else None))
        for (s, answer), hit in zip(ended, hits, strict=True):
            better[s.name] += hit - (s.solved_at == 1)
            if s.solved_at is not None:
                known[s.name][answer] += 1
    return found


def right_answers(config: RunConfig) -> list[str] | None:
    """Of the sessions of a run over questions, in order; None of tasks that are not questions."""
    tasks = plan(config)
    if any("source" not in task.options for task in tasks):
        return None
    from envs.reasoning.suite import item_of

    return [item_of(task).answer.strip().casefold() for task in tasks]


def numbers(first: Sequence[SessionSummary], other: Sequence[SessionSummary]) -> dict[str, Any]:
    """``other`` against ``first``, paired, over the same sessions."""
    return {**vars(gain(first, other)), "attempts_per_solved": [attempts_per_solved(first), attempts_per_solved(other)]}


def main(
    out: Annotated[Path, typer.Option(help="Folder of the runs and the tables.")],
    suite: str = "reasoning",
    policy: str = "smollm2-135m",
    tasks: Annotated[str, typer.Option(help="Task names of the stream; empty: the suite's own.")] = STREAM,
    held_out: Annotated[str, typer.Option(help="Task names for transfer; empty: none.")] = HELD_OUT,
    seed: Annotated[int, typer.Option(help="Of the stream; 1-9 are for tuning.")] = 12,
    limit: Annotated[int, typer.Option(help="Sessions of the stream.")] = 480,
    attempts: int = 5,
    workers: int | None = None,
    rows: Annotated[str, typer.Option(help="Which rows besides frozen.")] = "words,weights,both",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Any setting; experience's not of frozen.")
    ] = None,
    only_stream: Annotated[bool, typer.Option("--only-stream", help="Neither forgetting nor transfer.")] = False,
    publish: Annotated[str | None, typer.Option(help="Name of the result file.")] = None,
) -> None:
    """Make the runs that are missing, and the tables."""
    made = Stream(out, suite, policy, seed, attempts, sets or [], workers)
    names = [name for name in rows.split(",") if name]
    folders = {name: made.run(name, name, tasks, limit) for name in ("frozen", *names)}
    found: dict[str, Any] = {
        "suite": suite,
        "policy": policy,
        "seed": seed,
        "limit": limit,
        "tasks": tasks,
        "attempts": attempts,
        "sets": sets or [],
        "command": command_line().replace(str(out), "DIR"),
        "rows": {},
        "outcomes": {},
    }
    whole = compare([read_run(folders[name]) for name in folders])
    for name, sessions in zip(names, whole.found[1:], strict=True):
        parts = {label: numbers(whole.found[0][place], sessions[place]) for label, place in halves(len(sessions))}
        found["rows"][name] = {"stream": parts}
    answers = right_answers(made.config("frozen", "frozen", tasks, limit))
    frequent = None if answers is None else most_frequent(whole.found[0], answers, ExperienceConfig().every)
    if frequent is not None:
        parts = {label: vars(gain(whole.found[0][place], frequent[place])) for label, place in halves(len(frequent))}
        found["rows"][FREQUENT] = {"stream": parts}
    names_of = [(s.name, s.task) for s in whole.found[0]]
    solved = {name: solved_at(sessions) for name, sessions in zip(("frozen", *names), whole.found, strict=True)}
    if frequent is not None:
        solved[FREQUENT] = solved_at(frequent)
    found["outcomes"]["stream"] = {"sessions": names_of, "solved_at": solved}
    pages = [markdown(whole.title, [section for section in whole.sections() if section.rows])]
    again = min(AGAIN, limit)
    for label, these in () if only_stream else (("forgetting", tasks), ("transfer", held_out)):
        if label == "transfer" and not these:
            continue
        frozen = read_run(made.again(f"{label}-frozen", "frozen", these, again))
        for name in names:
            read = read_run(made.again(f"{label}-{name}", name, these, again, "experience.add=false"))
            pair = compare([frozen, read])
            found["rows"][name][label] = numbers(*pair.found)
            found["outcomes"].setdefault(label, {"sessions": [(s.name, s.task) for s in pair.found[0]], "solved_at": {}})
            found["outcomes"][label]["solved_at"] |= {"frozen": solved_at(pair.found[0]), name: solved_at(pair.found[1])}
            pages.append(markdown(f"{label}: {pair.title}", [section for section in pair.sections() if section.rows]))
    found["commits"] = made.commits()
    text = json.dumps(found, indent=1)
    (out / "experience.json").write_text(text + "\n", encoding="utf-8")
    if publish:
        (RESULTS / f"{publish}.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
    (out / "experience.md").write_text("\n".join(pages), encoding="utf-8")
    typer.echo(f"Written: {out / 'experience.md'}")


if __name__ == "__main__":
    typer.run(main)

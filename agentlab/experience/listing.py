"""An experience directory for people: what is in it, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentlab.experience.directory import Directory
from agentlab.experience.known import Known, SolvedQuestion
from agentlab.experience.state import State
from envs.errors import UsageError, did_you_mean


def read(directory: Directory) -> State:
    """Everything in it, without the tokens.

    Raises:
        StoreError: it is not one, or cannot be read.
    """
    source, state = directory.source(), State(forgotten=frozenset(directory.forgotten()))
    for name in directory.rounds():
        state = state.after(directory, name, source, tokens=False)
    return state


def ids(state: State) -> dict[str, list[str]]:
    """What `forget` may name, and what it stands for: lessons, examples, and sessions, as often as they have been there."""
    found = {one: [one] for one in (*state.lessons, *(example.id for example in state.examples))}
    for past in state.sessions:
        found.setdefault(past.task, []).append(past.origin)
    return found


def standing(state: State, lesson: Known) -> str:
    """Whether a lesson is shown, and why not."""
    if lesson.forgotten(state.forgotten):
        return "forgotten"
    return "retired" if lesson.retired or state.lessons_harm else "shown"


def title(directory: Directory, state: State) -> str:
    source = directory.source()
    solved = sum(past.solved_at is not None for past in state.sessions)
    return (
        f"{source.benchmark} · {source.policy} · {len(state.rounds)} rounds · {len(state.sessions)} sessions, {solved} of them solved · "
        f"{len(state.lessons)} lessons · {len(state.examples)} examples"
    )


def lesson_rows(state: State) -> list[tuple[str, ...]]:
    """A row per lesson: id, kind, when, sessions that read it, their mean gain, standing.  What it says: ``show``."""
    return [
        (one.id, one.lesson.kind, one.lesson.when, str(one.reads), f"{one.credit / one.reads:+.2f}" if one.reads else "–",
         standing(state, one))
        for one in state.lessons.values()
    ]  # fmt: skip


LESSON_HEADER = ("lesson", "kind", "of", "read by", "gain", "standing")


def group_rows(state: State) -> list[tuple[str, ...]]:
    """A row per task name: sessions, solved at the first attempt, solved, examples."""
    names = sorted({past.name for past in state.sessions})
    rows: list[tuple[str, ...]] = []
    for name in names:
        past = [one for one in state.sessions if one.name == name]
        first, solved = (sum(bool(p.solved_at and p.solved_at <= most) for p in past) for most in (1, 10**6))
        rows.append((name, str(len(past)), str(first), str(solved), str(sum(e.name == name for e in state.examples))))
    return rows


GROUP_HEADER = ("task", "sessions", "solved at once", "solved", "examples")


def about(directory: Directory, state: State, wanted: str) -> Iterator[str]:
    """What is known of a lesson, an example, a session or a round, in lines.

    Raises:
        UsageError: there is no such thing.
    """
    if wanted in state.rounds:
        yield from (f"{name}: {value}" for name, value in directory.about(wanted).items())
        return
    lesson = state.lessons.get(wanted)
    example = next((one for one in state.examples if one.id == wanted), None)
    session = any(past.task == wanted for past in state.sessions)
    if lesson is None and example is None and not session:
        raise UsageError(
            f"There is nothing of the id {wanted!r} in {directory.folder}.",
            did_you_mean(wanted, [*state.rounds, *ids(state)], what="id"),
        )
    if lesson is not None:
        yield from _lesson(directory, state, lesson)
    if example is not None:
        yield from _example(state, example)
    if session:
        yield from _sessions(wanted, directory)


def _lesson(directory: Directory, state: State, one: Known) -> Iterator[str]:
    yield f"lesson {one.id} ({one.lesson.kind}), of {one.lesson.when}: {standing(state, one)}"
    yield f"  {one.lesson.text}"
    gain = f", which went {one.credit / one.reads:+.2f} better than expected" if one.reads else ""
    yield f"  from {one.task}; taught by {one.support} sessions; read by {one.reads}{gain}"
    for name in state.rounds:
        for line in directory.lines(name, "sessions"):
            if one.id in line.get("lessons", []):
                yield f"  read by {line['task']}: {_ending(line)}"


def _example(state: State, one: SolvedQuestion) -> Iterator[str]:
    yield f"example {one.id}, of {one.name}{': forgotten' if one.forgotten(state.forgotten) else ''}"
    yield f"  from {one.task}"
    yield from (f"  Q: {line}" for line in one.question.splitlines())
    yield from (f"  A: {line}" for line in one.reply.splitlines())


def _sessions(task: str, directory: Directory) -> Iterator[str]:
    for name in directory.rounds():
        for line in directory.lines(name, "sessions"):
            if line["task"] == task:
                shown = ", ".join([*line.get("lessons", []), *line.get("examples", [])]) or "nothing"
                start = line.get("theta_1") or "frozen"
                yield f"session {task} in round {name}: {_ending(line)}; shown: {shown}; weights at its start: {start}"


def _ending(line: dict[str, Any]) -> str:
    return f"solved at attempt {line['solved_at']}" if line["solved_at"] else f"not solved in {line['attempts']} attempts"

"""What visibly happened in a failed attempt: only what the agent itself could have seen, and the bare fact that it failed.

Nothing here knows the answer.  The accessibility tree, the grader's score and its reasons are never looked at; places are words
("top left"), and the only coordinates are those in the agent's own action text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from envs import actions as act
from envs.base import Observation
from retrospect import screens
from retrospect.guidance import MAX_STEPS, Tried
from retrospect.sanitize import clean_line, shorten
from retrospect.trace import Step, Trace

Kind = Literal[
    "invalid", "nothing_changed", "clicked_nothing", "typed_nowhere", "repeat", "same_place", "loop", "tried_before",
    "refused", "gave_up", "ended", "budget", "feedback",
]  # fmt: skip

SAME_PLACE = 0.02
"""Two clicks nearer than this share of the screen's diagonal are clicks on the same place (at least 4 pixels)."""

REMEMBERED_STEPS = MAX_STEPS + 1
"""Steps kept of an earlier attempt: as many as guidance can list, and one more so that it says when some are left out."""

TEXT_STEPS_HEAD, TEXT_STEPS_TAIL = 6, 18
"""Steps told to a critic from the beginning and from the end of a long attempt."""


MAX_ANSWER = 4_000
"""Characters kept of a text that the environment showed; a critic is told fewer."""

MAX_SAID = 1_000
"""Characters that a critic is told of what the user said."""


@dataclass(frozen=True)
class Finding:
    """One thing that visibly went wrong: its kind, the 1-based steps concerned, and a sentence."""

    kind: Kind
    steps: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class StepEvidence:
    """One step as it looked from outside.

    Attributes:
        index: 1-based.
        thought: The agent's thought, one line, without markup.
        action_text: The agent's action in its own words and coordinates, one line, without markup.
        kinds: The kinds of the parsed actions (:data:`envs.actions.VOCABULARY`).
        place: Where the last pointed action went, in words; "" if there is none.
        changed: Whether what the agent saw changed.  True for the step that ended the attempt without a look at its effect.
        where: Where the screen changed, in words, largest region first.
        boxes: The changed regions in pixels (for viewers; never given to a critic).
        seen: Number of what the agent saw; equal numbers mean that it looked the same.
        invalid: Why the reply could not be executed ("" if it could).
        answer: The text that the environment showed after it, one line, without markup; "" if it shows none, or the attempt was over.
        feedback: What a user said to it, one line, without markup.
    """

    index: int
    thought: str
    action_text: str
    kinds: tuple[str, ...]
    place: str
    changed: bool
    where: tuple[str, ...]
    boxes: tuple[screens.Box, ...]
    seen: int
    invalid: str = ""
    answer: str = ""
    feedback: str = ""
    on_screen: bool = True
    """Whether there was a picture to look at."""


@dataclass(frozen=True)
class Evidence:
    """Everything a critic may know of one failed attempt."""

    instruction: str
    attempt: int
    guidance: str
    ended_by: str
    steps: tuple[StepEvidence, ...]
    findings: tuple[Finding, ...]

    def of_kind(self, *kinds: Kind) -> Iterator[Finding]:
        return (finding for finding in self.findings if finding.kind in kinds)

    def tried(self) -> tuple[Tried, ...]:
        """The end of the attempt in the compact form of :mod:`retrospect.guidance`."""
        return tuple(Tried(step.thought, step.action_text, step.changed, step.feedback) for step in self.steps[-REMEMBERED_STEPS:])

    def sources(self, attempts: Iterable[Sequence[Tried]]) -> list[str]:
        """Texts whose coordinates guidance may name: the task's, and the agent's own actions, of this attempt all."""
        earlier = (tried.action_text for attempt in attempts for tried in attempt)
        return [self.instruction, *(step.action_text for step in self.steps), *earlier]

    def to_json(self) -> dict[str, Any]:
        """JSON-serialisable, for the run directory and the viewer."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """Plain text for a critic: the task, how the attempt ended, its steps (the middle of a long one left out), the findings."""
        lines = [f"Task: {clean_line(self.instruction)}", f"Attempt {self.attempt} failed.", "", "Steps:"]
        cut = len(self.steps) > TEXT_STEPS_HEAD + TEXT_STEPS_TAIL
        told = (*self.steps[:TEXT_STEPS_HEAD], *self.steps[-TEXT_STEPS_TAIL:]) if cut else self.steps
        for step in told:
            lines.append(_tell(step))
            if cut and step.index == TEXT_STEPS_HEAD:
                lines.append(f"({len(self.steps) - len(told)} steps left out)")
        lines += ["", "What was noticed:", *(f"- {finding.text}" for finding in self.findings)]
        return "\n".join(lines)


def gather(trace: Trace, earlier: Sequence[Sequence[Tried]] = ()) -> Evidence:
    """Evidence of one failed attempt; ``earlier`` are the failed attempts before it, to notice that one was repeated."""
    numbers = _identify(trace.observations)
    steps = tuple(_look_at(trace, step, numbers) for step in trace.steps)
    findings = (
        *_step_findings(steps),
        *_repeats(trace, steps),
        *_same_places(trace, steps),
        *_loops(trace, numbers),
        *_tried_before(steps, earlier),
        _ending(trace),
        *_feedback(steps),
    )
    return Evidence(trace.instruction, trace.attempt, trace.guidance, trace.ended_by, steps, findings)


def _look_at(trace: Trace, step: Step, numbers: Sequence[int]) -> StepEvidence:
    before, after = step.observation, trace.after(step.index)
    # What the screen shows once the episode is over is the benchmark's doing, not an effect that the agent could have used.
    last = step.index == len(trace.steps) and trace.ended_by != "budget"
    same = numbers[step.index - 1] == numbers[step.index]
    change = screens.Change() if last or same else _compare(before, after)
    height, width = after["screenshot"].shape[:2] if "screenshot" in after else (0, 0)
    pointed = [action for action in step.actions if isinstance(action, act.POINTED)]
    return StepEvidence(
        index=step.index,
        thought=clean_line(step.thought),
        action_text=clean_line(step.action_text or "; ".join(act.describe(action) for action in step.actions)),
        kinds=tuple(action.kind for action in step.actions),
        place=_place(pointed[-1], before) if pointed else "",
        changed=last or bool(change) or before.get("text") != after.get("text"),
        where=screens.places(change, width, height),
        boxes=change.boxes,
        seen=numbers[step.index - 1],
        invalid=clean_line(step.invalid),
        answer="" if last else clean_line(after.get("text", "")[:MAX_ANSWER]),
        feedback=clean_line(step.feedback),
        on_screen="screenshot" in before,
    )


def _identify(observations: Sequence[Observation]) -> list[int]:
    """A number per observation: two have the same number if they look the same."""
    pictures = [observation["screenshot"] for observation in observations if "screenshot" in observation]
    looks = iter(screens.identify(pictures))
    seen = [(next(looks) if "screenshot" in observation else None, observation.get("text")) for observation in observations]
    numbers = {look: number for number, look in enumerate(dict.fromkeys(seen))}
    return [numbers[look] for look in seen]


def _compare(before: Observation, after: Observation) -> screens.Change:
    """How the picture changed; without a picture, it did not."""
    if "screenshot" not in before or "screenshot" not in after:
        return screens.Change()
    return screens.compare(before["screenshot"], after["screenshot"])


def _place(action: act.Pointed, observation: Observation) -> str:
    """Where an action went, in words; "" without a picture."""
    if "screenshot" not in observation:
        return ""
    height, width = observation["screenshot"].shape[:2]
    return screens.place(action.x, action.y, width, height)


def _step_findings(steps: Sequence[StepEvidence]) -> Iterator[Finding]:
    for step in steps:
        if step.invalid:
            yield Finding("invalid", (step.index,), f"Step {step.index} was not executed: {shorten(step.invalid, 160)}")
        elif step.changed or step.kinds == (act.Wait.kind,):
            continue
        elif step.on_screen and step.kinds and step.kinds[-1] == act.Type.kind:
            text = f"Step {step.index} typed text, but none appeared: probably no field had the focus."
            yield Finding("typed_nowhere", (step.index,), text)
        elif step.place:
            text = f"Step {step.index} pointed at the {step.place} of the screen and nothing changed."
            yield Finding("clicked_nothing", (step.index,), text)
        else:
            where = " on the screen" if step.on_screen else ""
            yield Finding("nothing_changed", (step.index,), f"Step {step.index} changed nothing{where}.")


def _repeats(trace: Trace, steps: Sequence[StepEvidence]) -> Iterator[Finding]:
    """The same action on the same screen, or to the same text, again."""
    seen: dict[tuple[int, object], list[int]] = {}
    for step, look in zip(trace.steps, steps, strict=True):
        if look.kinds == (act.Wait.kind,):
            continue
        seen.setdefault((look.seen, step.actions if not look.invalid else look.action_text), []).append(step.index)
    for indices in seen.values():
        if len(indices) > 1:
            yield Finding("repeat", tuple(indices), f"Steps {_list(indices)} did the same {_where(steps[indices[0] - 1])}.")


def _same_places(trace: Trace, steps: Sequence[StepEvidence]) -> Iterator[Finding]:
    """Different actions that pointed at one place in vain (exact repeats are told as such)."""
    groups: list[tuple[float, float, list[int], set[act.Action]]] = []
    for step, look in zip(trace.steps, steps, strict=True):
        pointed = [action for action in step.actions if isinstance(action, act.POINTED)]
        if look.changed or look.invalid or not pointed or "screenshot" not in step.observation:
            continue
        action, (height, width) = pointed[-1], step.observation["screenshot"].shape[:2]
        near = max(4.0, SAME_PLACE * (height**2 + width**2) ** 0.5)
        for x, y, indices, kinds in groups:
            if (action.x - x) ** 2 + (action.y - y) ** 2 <= near**2:
                indices.append(step.index)
                kinds.add(action)
                break
        else:
            groups.append((action.x, action.y, [step.index], {action}))
    for _, _, indices, kinds in groups:
        if len(indices) > 1 and len(kinds) > 1:
            text = f"Steps {_list(indices)} pointed at nearly the same place ({steps[indices[0] - 1].place}) in vain."
            yield Finding("same_place", tuple(indices), text)


def _loops(trace: Trace, numbers: Sequence[int]) -> Iterator[Finding]:
    """Steps that brought back a screen left earlier.  The screen after the episode's end is not one the agent acted on."""
    last = len(numbers) if trace.ended_by == "budget" else len(numbers) - 1
    for after in range(2, last):
        if numbers[after] == numbers[after - 1] or numbers[after] not in numbers[: after - 1]:
            continue
        start = max(i for i in range(after - 1) if numbers[i] == numbers[after])
        what = "the screen" if "screenshot" in trace.observations[after] else "the text"
        text = f"After step {after} {what} was again as before step {start + 1}: the steps between came to nothing."
        yield Finding("loop", tuple(range(start + 1, after + 1)), text)


def _tried_before(steps: Sequence[StepEvidence], earlier: Sequence[Sequence[Tried]]) -> Iterator[Finding]:
    last = steps[-REMEMBERED_STEPS:]
    now = [step.action_text for step in last]
    if any([tried.action_text for tried in attempt] == now for attempt in earlier):
        known_whole = len(now) < REMEMBERED_STEPS
        did = "took exactly the same actions" if known_whole else f"ended with the same {len(now)} actions"
        yield Finding("tried_before", tuple(step.index for step in last), f"An earlier failed attempt {did}.")


def _ending(trace: Trace) -> Finding:
    n = len(trace.steps)
    if trace.ended_by == act.Finished.kind:
        return Finding("refused", (n,), f"At step {n} the agent declared the task finished; it was not.")
    if trace.ended_by == act.Fail.kind:
        return Finding("gave_up", (n,), f"At step {n} the agent declared the task impossible; that was not accepted.")
    if trace.ended_by == "budget":
        return Finding("budget", (), f"All {n} steps were used up before the task was done.")
    return Finding("ended", (n,), f"The attempt ended right after step {n}, as a failure.")


def _feedback(steps: Sequence[StepEvidence]) -> Iterator[Finding]:
    for step in steps:
        if step.feedback:
            yield Finding("feedback", (step.index,), f"After step {step.index} the user said: {shorten(step.feedback, MAX_SAID)}")


def _where(step: StepEvidence) -> str:
    return "on the same screen" if step.on_screen else "to the same text"


def _tell(step: StepEvidence) -> str:
    where = f" [{step.place}]" if step.place else ""
    lines = [f"{step.index}. Thought: {shorten(step.thought, 300) or '-'}", f"   Action: {shorten(step.action_text, 200)}{where}"]
    if step.invalid:
        effect = f"not executed: {shorten(step.invalid, 160)}"
    elif step.answer and step.changed:
        effect = f"the environment said: {shorten(step.answer, 300)}"
        effect += f" (and the screen changed at: {', '.join(step.where)})" if step.where else ""
    elif step.where:
        effect = f"the screen changed at: {', '.join(step.where)}"
    else:
        effect = "the attempt ended" if step.changed else "nothing changed"
    said = [f"   The user said: {shorten(step.feedback, MAX_SAID)}"] if step.feedback else []
    return "\n".join([*lines, f"   Effect: {effect}", *said])


def _list(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:-1])) + f" and {indices[-1]}"

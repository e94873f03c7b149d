"""What visibly happened in a failed attempt: only what the agent itself could have seen, and the bare fact that it failed.

Nothing here knows the answer.  The accessibility tree, the grader's score and its reasons are never looked at; places are words
("top left"), and the only coordinates are those in the agent's own action text.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from envs import actions as act
from retrospect import screens
from retrospect.guidance import MAX_STEPS, Tried
from retrospect.sanitize import clean_line, shorten
from retrospect.trace import Step, Trace

Kind = Literal[
    "invalid", "nothing_changed", "clicked_nothing", "typed_nowhere", "repeat", "same_place", "loop", "tried_before",
    "refused", "gave_up", "ended", "budget",
]  # fmt: skip

SAME_PLACE = 0.02
"""Two clicks nearer than this share of the screen's diagonal are clicks on the same place (at least 4 pixels)."""

REMEMBERED_STEPS = MAX_STEPS + 1
"""Steps kept of an earlier attempt: as many as guidance can list, and one more so that it says when some are left out."""

TEXT_STEPS_HEAD, TEXT_STEPS_TAIL = 6, 18
"""Steps told to a critic from the beginning and from the end of a long attempt."""


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
        changed: Whether the screen visibly changed.  True for the step that ended the attempt without a look at its effect.
        where: Where it changed, in words, largest region first.
        boxes: The changed regions in pixels (for viewers; never given to a critic).
        screen: Number of the screen the agent saw; equal numbers are indistinguishable screens.
        invalid: Why the reply could not be executed ("" if it could).
    """

    index: int
    thought: str
    action_text: str
    kinds: tuple[str, ...]
    place: str
    changed: bool
    where: tuple[str, ...]
    boxes: tuple[screens.Box, ...]
    screen: int
    invalid: str = ""


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
        return tuple(Tried(step.thought, step.action_text, step.changed) for step in self.steps[-REMEMBERED_STEPS:])

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
    looks = [step.screenshot for step in trace.steps]
    numbers = screens.identify([*looks, trace.final_screenshot])
    steps = tuple(_look_at(trace, step, numbers) for step in trace.steps)
    findings = (
        *_step_findings(steps),
        *_repeats(trace, steps),
        *_same_places(trace, steps),
        *_loops(trace, numbers),
        *_tried_before(steps, earlier),
        _ending(trace),
    )
    return Evidence(trace.instruction, trace.attempt, trace.guidance, trace.ended_by, steps, findings)


def _look_at(trace: Trace, step: Step, numbers: Sequence[int]) -> StepEvidence:
    before, after = step.screenshot, trace.screens_after(step.index)
    height, width = after.shape[:2]
    # What the screen shows once the episode is over is the benchmark's doing, not an effect that the agent could have used.
    last = step.index == len(trace.steps) and trace.ended_by != "budget"
    same = numbers[step.index - 1] == numbers[step.index]
    change = screens.Change() if last or same else screens.compare(before, after)
    pointed = [action for action in step.actions if isinstance(action, act.POINTED)]
    return StepEvidence(
        index=step.index,
        thought=clean_line(step.thought),
        action_text=clean_line(step.action_text or "; ".join(act.describe(action) for action in step.actions)),
        kinds=tuple(action.kind for action in step.actions),
        place=screens.place(pointed[-1].x, pointed[-1].y, before.shape[1], before.shape[0]) if pointed else "",
        changed=last or bool(change),
        where=screens.places(change, width, height),
        boxes=change.boxes,
        screen=numbers[step.index - 1],
        invalid=clean_line(step.invalid),
    )


def _step_findings(steps: Sequence[StepEvidence]) -> Iterator[Finding]:
    for step in steps:
        if step.invalid:
            yield Finding("invalid", (step.index,), f"Step {step.index} was not executed: {shorten(step.invalid, 160)}")
        elif step.changed or step.kinds == (act.Wait.kind,):
            continue
        elif step.kinds and step.kinds[-1] == act.Type.kind:
            text = f"Step {step.index} typed text, but none appeared: probably no field had the focus."
            yield Finding("typed_nowhere", (step.index,), text)
        elif step.place:
            text = f"Step {step.index} pointed at the {step.place} of the screen and nothing changed."
            yield Finding("clicked_nothing", (step.index,), text)
        else:
            yield Finding("nothing_changed", (step.index,), f"Step {step.index} changed nothing on the screen.")


def _repeats(trace: Trace, steps: Sequence[StepEvidence]) -> Iterator[Finding]:
    """The same action on the same screen, again."""
    seen: dict[tuple[int, object], list[int]] = {}
    for step, look in zip(trace.steps, steps, strict=True):
        if look.kinds == (act.Wait.kind,):
            continue
        seen.setdefault((look.screen, step.actions if not look.invalid else look.action_text), []).append(step.index)
    for indices in seen.values():
        if len(indices) > 1:
            yield Finding("repeat", tuple(indices), f"Steps {_list(indices)} did the same on the same screen.")


def _same_places(trace: Trace, steps: Sequence[StepEvidence]) -> Iterator[Finding]:
    """Different actions that pointed at one place in vain (exact repeats are told as such)."""
    groups: list[tuple[float, float, list[int], set[act.Action]]] = []
    for step, look in zip(trace.steps, steps, strict=True):
        pointed = [action for action in step.actions if isinstance(action, act.POINTED)]
        if look.changed or look.invalid or not pointed:
            continue
        action, (height, width) = pointed[-1], step.screenshot.shape[:2]
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
        text = f"After step {after} the screen was again as before step {start + 1}: the steps between came to nothing."
        yield Finding("loop", tuple(range(start + 1, after + 1)), text)


def _tried_before(steps: Sequence[StepEvidence], earlier: Sequence[Sequence[Tried]]) -> Iterator[Finding]:
    now = [step.action_text for step in steps][-REMEMBERED_STEPS:]
    if any([tried.action_text for tried in attempt] == now for attempt in earlier):
        text = "An earlier failed attempt took exactly the same actions."
        yield Finding("tried_before", tuple(step.index for step in steps), text)


def _ending(trace: Trace) -> Finding:
    n = len(trace.steps)
    if trace.ended_by == act.Finished.kind:
        return Finding("refused", (n,), f"At step {n} the agent declared the task finished; it was not.")
    if trace.ended_by == act.Fail.kind:
        return Finding("gave_up", (n,), f"At step {n} the agent declared the task impossible; that was not accepted.")
    if trace.ended_by == "budget":
        return Finding("budget", (), f"All {n} steps were used up before the task was done.")
    return Finding("ended", (n,), f"The attempt ended right after step {n}, as a failure.")


def _tell(step: StepEvidence) -> str:
    where = f" [{step.place}]" if step.place else ""
    lines = [f"{step.index}. Thought: {shorten(step.thought, 300) or '-'}", f"   Action: {shorten(step.action_text, 200)}{where}"]
    if step.invalid:
        effect = f"not executed: {shorten(step.invalid, 160)}"
    elif step.where:
        effect = f"the screen changed at: {', '.join(step.where)}"
    else:
        effect = "the attempt ended" if step.changed else "nothing changed"
    return "\n".join([*lines, f"   Effect: {effect}"])


def _list(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices[:-1])) + f" and {indices[-1]}"

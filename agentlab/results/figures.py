"""Pictures of runs: curves and bars by matplotlib, and a session as a strip of its attempts by Pillow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from agentlab.disk.row import SPLIT
from agentlab.disk.runs import Attempt, attempt_folders, find_session, read_attempt, read_observation
from agentlab.results.drawing import INK, draw_actions, fit, font, wrap
from agentlab.results.metrics import Interval, SessionSummary
from envs import actions as act
from envs.errors import InvalidActionError, StoreError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Band = tuple[float, Interval]
"""A share and its interval."""

COLOURS = ("#1f5fa8", "#d6005c", "#0f8a5f", "#c77700", "#6b4fbb", "#5b6770")


# -- curves and bars ---------------------------------------------------------------------------------------------------------------
def success_curve(curves: Mapping[str, Sequence[Band]], path: Path, *, title: str = "") -> None:
    """success@k over k, one line with a shaded interval per label; the k-th band (from 1) is that of success@k."""
    figure, axes = _figure(title)
    for number, (label, bands) in enumerate(curves.items()):
        colour, k = COLOURS[number % len(COLOURS)], range(1, len(bands) + 1)
        axes.fill_between(k, [100 * b[1][0] for b in bands], [100 * b[1][1] for b in bands], color=colour, alpha=0.15, lw=0)
        axes.plot(k, [100 * b[0] for b in bands], color=colour, marker="o", markersize=4, label=label)
    axes.set_xlabel("attempts k")
    axes.set_ylabel("success@k  (%)")
    axes.set_ylim(0, 100)
    axes.set_xticks(range(1, max(len(b) for b in curves.values()) + 1))
    if len(curves) > 1:
        axes.legend(frameon=False)
    figure.savefig(path)


def success_over_seconds(curves: Mapping[str, Sequence[SessionSummary]], path: Path, *, title: str = "") -> None:
    """Share of the sessions solved within s seconds of their own, over s: a step up where one was solved (ROSA Figure 6)."""
    figure, axes = _figure(title)
    end = max((s.seconds for found in curves.values() for s in found), default=1.0) or 1.0
    for number, (label, found) in enumerate(curves.items()):
        solved = sorted(s.solved_seconds for s in found if s.solved_seconds is not None)
        shares = [100 * n / max(1, len(found)) for n in range(len(solved) + 1)]
        axes.step([0.0, *solved, end], [*shares, shares[-1]], where="post", color=COLOURS[number % len(COLOURS)], label=label)
    axes.set_xlabel("seconds of a session, learning included")
    axes.set_ylabel("solved  (%)")
    axes.set_ylim(0, 100)
    axes.set_xlim(0, end)
    if len(curves) > 1:
        axes.legend(frameon=False)
    figure.savefig(path)


def newly_solved_bars(counts: Sequence[int], path: Path, *, title: str = "") -> None:
    """Sessions solved for the first time at each attempt."""
    figure, axes = _figure(title)
    bars = axes.bar(range(1, len(counts) + 1), counts, color=COLOURS[0], width=0.6)
    axes.bar_label(bars)
    axes.set_xticks(range(1, len(counts) + 1))
    axes.set_xlabel("attempt")
    axes.set_ylabel("newly solved sessions")
    axes.margins(y=0.12)
    figure.savefig(path)


def time_split_bar(seconds: Mapping[str, Sequence[float]], path: Path, *, title: str = "") -> None:
    """Where the seconds go: for each of :data:`~agentlab.disk.row.SPLIT`, the mean at attempt 1, 2, …, stacked."""
    figure, axes = _figure(title)
    bottom = [0.0] * len(next(iter(seconds.values())))
    for part, colour in zip(SPLIT, COLOURS, strict=False):
        axes.bar(range(1, len(bottom) + 1), seconds[part], bottom=bottom, width=0.6, color=colour, label=part)
        bottom = [b + s for b, s in zip(bottom, seconds[part], strict=True)]
    axes.set_xticks(range(1, len(bottom) + 1))
    axes.set_xlabel("attempt")
    axes.set_ylabel("seconds per attempt")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def _figure(title: str) -> tuple[Figure, Axes]:
    """A figure of its own, without pyplot's global state (reports may be drawn from any thread)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 3.5), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
    axes.set_title(title, fontsize=10, loc="left")
    return figure, axes


# -- a session as a picture --------------------------------------------------------------------------------------------------------
PAPER, TEXT, SOFT, LINE = "#ffffff", "#1c2430", "#66707d", "#d9dee5"
GOOD, BAD, BROKEN = "#0f8a5f", "#c0392b", "#8a6d00"
PAD = 14
WORDS_WIDTH = 250
END_WIDTH = 150
TEXT_CELL = (180, 300)
"""Height and width of the cell of a step that has a text instead of a screen."""
MAX_LINES = 4
"""Most lines of a thought that are shown."""


@dataclass(frozen=True)
class Strip:
    """Sizes of a strip's cells, in pixels; ``scale`` enlarges the screens, ``lines`` is how many the longest thought takes."""

    scale: float
    width: int
    height: int
    columns: int
    lines: int = MAX_LINES

    @property
    def row(self) -> int:
        """Height of one attempt: heading, screen, thought, one line of action."""
        return 26 + self.height + 5 + 16 * self.lines + 22

    def x(self, column: int) -> int:
        return PAD + WORDS_WIDTH + PAD + column * (self.width + PAD)


def attempt_strip(
    run_dir: Path, task_id: str, path: Path, *, columns: int = 6, scale: float | None = None, attempts: Sequence[int] | None = None
) -> None:
    """A picture of one session: a row per attempt, a column per step.

    At the left the guidance the attempt was made under; under each screen (with the action drawn on it) or text the thought and the action;
    at the end the reward, and what the update did to the weights.

    Args:
        run_dir: Run directory.
        task_id: Task id of the session.
        path: Image file to write.
        columns: Steps shown; of a longer attempt the first and the last ones.
        scale: Enlargement of the screens; None makes small ones (MiniWoB's 160x220) twice as large and fits large ones.
        attempts: Numbers of the attempts to show; None is all.

    Raises:
        UsageError: no such session.
        StoreError: no attempt of it can be shown.
    """
    every = [read_attempt(folder) for folder in attempt_folders(find_session(run_dir, task_id))]
    shown = [a for a in every if a.steps and (attempts is None or a.number in attempts)]
    if not shown:
        raise StoreError(f"{run_dir} has no attempt at {task_id} to show.", "`agentlab report` lists what it has.")
    strip = _sizes(shown, columns, scale)
    heading = wrap(f"{task_id}: {shown[0].begin.get('instruction', '')}", font(15, "-Bold"), strip.x(strip.columns) - 2 * PAD, 3)
    top = PAD + 22 * len(heading) + 8
    picture = Image.new("RGB", (strip.x(strip.columns) + END_WIDTH + PAD, top + len(shown) * (strip.row + PAD)), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(heading):
        draw.text((PAD, PAD + 22 * number), line, font=font(15, "-Bold"), fill=TEXT)
    for number, attempt in enumerate(shown):
        y = top + number * (strip.row + PAD)
        draw.line((PAD, y - 6, picture.width - PAD, y - 6), fill=LINE)
        _words_cell(draw, attempt, y, strip)
        for column, step in enumerate(_telling(attempt.steps, strip.columns)):
            _step_cell(picture, draw, attempt, step, strip.x(column), y, strip)
        _end_cell(draw, attempt, strip.x(min(len(attempt.steps), strip.columns)), y, strip)
    path.unlink(missing_ok=True)  # were it a link, saving would write to what it points at
    picture.save(path, optimize=True)


def _sizes(shown: Sequence[Attempt], columns: int, scale: float | None) -> Strip:
    height, width = _first_screen(shown)
    if scale is None:
        scale = 1.0 if (height, width) == TEXT_CELL else 2.0 if width <= 200 else min(2.0, 340 / width)
    thoughts = [wrap(_thought(step), font(12), round(width * scale), MAX_LINES) for a in shown for step in a.steps]
    most = min(columns, max(len(a.steps) for a in shown))
    return Strip(scale, round(width * scale), round(height * scale), most, max(map(len, thoughts)))


def _thought(step: dict[str, Any]) -> str:
    return str(step.get("thought") or "")


def _first_screen(shown: Sequence[Attempt]) -> tuple[int, int]:
    for attempt in shown:
        for step in attempt.steps:
            try:
                seen = read_observation(attempt.folder, step)
            except StoreError:
                continue
            return seen["screenshot"].shape[:2] if "screenshot" in seen else TEXT_CELL  # type: ignore[return-value]
    return 220, 160  # nothing to see: cells of a usual size say so


def _telling(steps: Sequence[dict[str, Any]], columns: int) -> list[dict[str, Any]]:
    """At most ``columns`` steps: the first half and the last ones."""
    if len(steps) <= columns:
        return list(steps)
    head = (columns + 1) // 2
    return [*steps[:head], *steps[len(steps) - (columns - head) :]]


def _words_cell(draw: ImageDraw.ImageDraw, attempt: Attempt, y: int, strip: Strip) -> None:
    draw.text((PAD, y), f"attempt {attempt.number}", font=font(15, "-Bold"), fill=TEXT)
    guidance = str(attempt.begin.get("guidance") or "")
    face = font(12)
    lines = wrap(guidance or "(the instruction alone)", face, WORDS_WIDTH - 8, strip.height // 16)
    if guidance:
        draw.rectangle((PAD, y + 28, PAD + 2, y + 28 + 16 * len(lines)), fill=COLOURS[3])
    for number, line in enumerate(lines):
        draw.text((PAD + 9, y + 27 + 16 * number), line, font=face, fill=TEXT if guidance else SOFT)


def _step_cell(
    picture: Image.Image, draw: ImageDraw.ImageDraw, attempt: Attempt, step: dict[str, Any], x: int, y: int, strip: Strip
) -> None:
    draw.text((x, y + 3), f"step {step.get('index', '?')}", font=font(12), fill=SOFT)
    try:
        actions = [act.from_json(a) for a in step.get("actions", [])]
        seen = read_observation(attempt.folder, step)
        if "screenshot" in seen:
            picture.paste(draw_actions(seen["screenshot"], actions, strip.scale).resize((strip.width, strip.height)), (x, y + 26))
        else:
            _text_cell(draw, seen["text"], x, y + 26, strip)
    except (StoreError, InvalidActionError) as error:
        for number, line in enumerate(wrap(error.message, font(12), strip.width - 16, 6)):
            draw.text((x + 8, y + 40 + 16 * number), line, font=font(12), fill=BAD)
    draw.rectangle((x - 1, y + 25, x + strip.width, y + 26 + strip.height), outline=LINE)
    below = y + 26 + strip.height + 5
    for number, line in enumerate(wrap(_thought(step), font(12), strip.width, strip.lines)):
        draw.text((x, below + 16 * number), line, font=font(12), fill=TEXT)
    words = " ".join(str(step.get("action_text") or step.get("text") or "").split())
    draw.text((x, below + 16 * strip.lines + 2), fit(words, font(11, "Mono"), strip.width), font=font(11, "Mono"), fill=INK[:3])


def _text_cell(draw: ImageDraw.ImageDraw, text: str, x: int, y: int, strip: Strip) -> None:
    """What the agent read, as much of its end as fits: that is where the news is."""
    face, most = font(11, "Mono"), (strip.height - 12) // 14
    lines = [line for paragraph in text.split("\n")[-most:] for line in wrap(paragraph, face, strip.width - 16, most)]
    for number, line in enumerate(lines[-most:]):
        draw.text((x + 8, y + 6 + 14 * number), line, font=face, fill=TEXT)


def _end_cell(draw: ImageDraw.ImageDraw, attempt: Attempt, x: int, y: int, strip: Strip) -> None:
    reward, score = attempt.result.reward if attempt.result else None, attempt.end.get("score")
    word, colour = {1: ("solved", GOOD), -1: ("failed", BAD)}.get(reward, ("no reward", BROKEN))  # type: ignore[arg-type]
    if reward == 1 and attempt.result is not None and not attempt.result.success:
        word, colour = "accepted, and wrong", BROKEN
    middle = y + 26 + strip.height // 2
    label = {1: "+1", -1: "−1"}.get(reward, "–")  # type: ignore[arg-type]
    draw.rounded_rectangle((x, middle - 56, x + 76, middle - 10), radius=8, fill=colour)
    draw.text((x + 38, middle - 33), label, font=font(24, "-Bold"), fill=PAPER, anchor="mm")
    lines = [word, f"score {score:g}" if isinstance(score, int | float) else "", f"ended by {attempt.end.get('ended_by', '?')}"]
    lines += _update_lines(attempt.update)
    for number, line in enumerate(line for line in lines if line):
        draw.text((x, middle + 16 * number), fit(line, font(12), END_WIDTH), font=font(12), fill=TEXT if number == 0 else SOFT)


def _update_lines(update: dict[str, Any] | None) -> list[str]:
    if not update:
        return []
    lines = ["", f"θ: {update.get('method', '?')} " + ("moved" if update.get("accepted") else "unchanged")]
    for name, short in (("kl_mean", "mean KL"), ("residual_before", "‖R‖ before"), ("residual_after", "‖R‖ after")):
        value = update.get(name)
        if isinstance(value, int | float):
            lines.append(f"{short} {value:.3g}")
    return lines

"""What is known about each MiniWoB++ task: its page, when it counts as solved, how many steps it gets."""

from __future__ import annotations

import functools
from importlib import util
from pathlib import Path

from envs.errors import SetupError

ENV_ID = "agentlab/miniwob-v0"

TRAIN_SEED_START = 100_000
"""Instances with a seed below this are for evaluation, the others for training."""

CORE = (
    "circle-center",
    "click-button",
    "click-button-sequence",
    "click-checkboxes",
    "click-checkboxes-transfer",
    "click-collapsible",
    "click-color",
    "click-dialog",
    "click-dialog-2",
    "click-link",
    "click-menu",
    "click-option",
    "click-shape",
    "click-tab",
    "click-tab-2-easy",
    "click-test",
    "click-test-2",
    "click-test-transfer",
    "click-widget",
    "count-shape",
    "count-sides",
    "drag-box",
    "email-inbox-delete",
    "email-inbox-important",
    "email-inbox-star-reply",
    "enter-date",
    "enter-password",
    "enter-text",
    "focus-text-2",
    "grid-coordinate",
    "identify-shape",
    "login-user",
    "odd-or-even",
    "simple-arithmetic",
    "unicode-test",
    "use-slider",
    "visual-addition",
)
"""The tasks that the bundled policy is trained on (``agentlab pretrain``), and the default suite.

``choose-list`` is not among them, although it was learned: its drop-down is drawn by the browser in its own time, so that a replay does
not always see the screens of the attempt."""

EXCLUDED: dict[str, str] = {
    "chase-circle": "the target moves with time, so the same instance never shows the same screens",
    "moving-items": "the targets move with time, so the same instance never shows the same screens",
    "stock-market": "the price moves with time, so the same instance never shows the same screens",
    "click-pie": "the menu opens with an animation that cannot be switched off (click-pie-nodelay is the same without it)",
    "hover-shape": "its page never ends an episode and pays nothing, so that it cannot be solved",
    "terminal": "a cursor blinks, so the same instance does not always show the same first screen",
}
"""Tasks of no sub-suite, with the reason; what moves or differs is measured by ``benchmarks/miniwob_determinism.py``."""

PASS_MARK: dict[str, float] = {
    # Scored by distance.  Any positive reward counts, which is the benchmark's own convention and BrowserGym's.  It is lax: what the pages
    # still pay for is anywhere in the circle, within 30 pixels, within 45 degrees, and anywhere inside the angle, in this order.
    "circle-center": 0.0, "find-midpoint": 0.0, "right-angle": 0.0, "bisect-angle": 0.0,
    # Scored by likeness, positive even for a page left as it was: nearly right is required.
    "use-colorwheel": 0.9, "use-colorwheel-2": 0.9, "draw-circle": 0.8, "draw-line": 0.8, "chase-circle": 0.8,
}  # fmt: skip
"""Tasks whose raw reward is not simply 1 for solved: solved means a raw reward above the mark (0) or at least the mark.
Everywhere else partial credit (some of the checkboxes, 0.1 for the wrong card) is not success."""


def solved(task: str, raw_reward: float) -> bool:
    """Whether the page's raw reward (no time penalty, in [-1, 1]) means that the task was solved."""
    mark = PASS_MARK.get(task, 1.0)
    return raw_reward > 0 if mark == 0 else raw_reward >= mark - 1e-6


@functools.cache
def pages() -> dict[str, Path]:
    """Task name -> its page, for every 160x210 task page of the installed ``miniwob`` package.

    Raises:
        SetupError: the package is not installed.
    """
    spec = util.find_spec("miniwob")
    if spec is None or spec.origin is None:
        raise SetupError(
            "The `miniwob` package, which holds the task pages, is not installed.", "Run `pip install miniwob==1.1.0`."
        )
    folder = Path(spec.origin).parent / "html" / "miniwob"
    return {path.stem: path for path in sorted(folder.glob("*.html"), key=lambda path: path.stem)}


DEFAULT_MAX_STEPS = 10

EXPERT_STEPS: dict[str, int] = {
    **dict.fromkeys(
        (
            "click-test", "click-test-2", "click-test-transfer", "click-button", "click-link", "click-dialog", "click-dialog-2",
            "click-tab", "click-color", "click-shape", "identify-shape", "count-sides", "count-shape", "grid-coordinate",
            "focus-text", "focus-text-2", "click-widget", "unicode-test",
        ),
        1,
    ),
    **dict.fromkeys(("click-option", "click-collapsible", "click-button-sequence", "circle-center", "find-midpoint"), 2),
    "click-checkboxes": 6, "click-shades": 7, "search-engine": 5, "read-table-2": 5, "login-user": 5, "enter-password": 5,
}  # fmt: skip
"""Most steps a scripted expert needed over 50 instances (``benchmarks/miniwob_oracles.py``), where that is not about 3 or 4."""


def max_steps(task: str) -> int:
    """Replies an agent may give in one attempt: twice what an expert needs and two more."""
    return 2 * EXPERT_STEPS[task] + 2 if task in EXPERT_STEPS else DEFAULT_MAX_STEPS

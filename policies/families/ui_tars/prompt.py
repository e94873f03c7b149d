"""What UI-TARS reads: one user text, earlier (screenshot, reply) pairs, the current screenshot.

Three kinds of prompt exist:

``v1``
    UI-TARS 2B/7B/72B (Qwen2-VL): Markdown sections, boxes written ``<|box_start|>(x,y)<|box_end|>``.
``1.5``
    UI-TARS-1.5 (Qwen2.5-VL): the same sections, points written ``<point>x y</point>``.
``plain``
    The instruction and nothing else: for small policies trained on this project's own episodes.

The models were trained on the official wording, which PyPI's ``ui-tars`` package carries (``ui_tars.prompt``): where that package
is importable its text is used, for ``v1`` with the action lines of the v1 protocol; elsewhere a skeleton of the same sections
stands in. :func:`wording` says which of the two it was, and a run records it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from envs.errors import UsageError

Kind = Literal["plain", "v1", "1.5"]
Platform = Literal["computer", "mobile"]
Message = dict[str, Any]

SYSTEM = "You are a helpful assistant."

ACTIONS_V1: dict[str, str] = {
    "computer": """\
click(start_box='<|box_start|>(x1,y1)<|box_end|>')
left_double(start_box='<|box_start|>(x1,y1)<|box_end|>')
right_single(start_box='<|box_start|>(x1,y1)<|box_end|>')
drag(start_box='<|box_start|>(x1,y1)<|box_end|>', end_box='<|box_start|>(x3,y3)<|box_end|>')
hotkey(key='')
type(content='') #If you want to submit your input, use "\\n" at the end of `content`.
scroll(start_box='<|box_start|>(x1,y1)<|box_end|>', direction='down or up or right or left')
wait() #Sleep for 5s and take a screenshot to check for any changes.
finished()
call_user() # Submit the task and call the user when the task is unsolvable, or when you need the user's help.""",
    "mobile": """\
click(start_box='<|box_start|>(x1,y1)<|box_end|>')
long_press(start_box='<|box_start|>(x1,y1)<|box_end|>', time='')
type(content='') #If you want to submit your input, use "\\n" at the end of `content`.
scroll(start_box='<|box_start|>(x1,y1)<|box_end|>', end_box='<|box_start|>(x3,y3)<|box_end|>')
open_app(app_name='')
drag(start_box='<|box_start|>(x1,y1)<|box_end|>', end_box='<|box_start|>(x3,y3)<|box_end|>')
press_home()
press_back()
finished(content='') # Submit the task regardless of whether it succeeds or fails.""",
}

ACTIONS_15: dict[str, str] = {
    "computer": """\
click(point='<point>x1 y1</point>')
left_double(point='<point>x1 y1</point>')
right_single(point='<point>x1 y1</point>')
drag(start_point='<point>x1 y1</point>', end_point='<point>x2 y2</point>')
hotkey(key='ctrl c')
type(content='xxx')
scroll(point='<point>x1 y1</point>', direction='down or up or right or left')
wait()
finished(content='xxx')""",
    "mobile": """\
click(point='<point>x1 y1</point>')
long_press(point='<point>x1 y1</point>')
type(content='')
scroll(point='<point>x1 y1</point>', direction='down or up or right or left')
open_app(app_name='')
drag(start_point='<point>x1 y1</point>', end_point='<point>x2 y2</point>')
press_home()
press_back()
finished(content='xxx')""",
}

SKELETON = """\
You are a GUI agent. From a task, your earlier actions and screenshots, choose the next action that completes the task.

## Output Format
```
Thought: ...
Action: ...
```

## Action Space

{actions}


## Note
- Use {language} in `Thought` part.
- Plan briefly in `Thought`, and end it with one sentence that names the next action and its target.

## User Instruction
{instruction}
"""


@dataclass(frozen=True)
class PromptShape:
    """How a checkpoint wants to be asked.

    Attributes:
        kind: ``plain``, ``v1`` or ``1.5``.
        platform: Which action lines the prompt lists; nothing to ``plain``.
        language: Language of the thoughts; the official runs use Chinese.
        history_images: Screenshots in the prompt, the current one included.
        history_replies: Earlier replies kept as text; None keeps all (the official runs do).
    """

    kind: Kind = "v1"
    platform: Platform = "computer"
    language: str = "Chinese"
    history_images: int = 5
    history_replies: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("plain", "v1", "1.5"):
            raise UsageError(f"Unknown prompt shape {self.kind!r}.", "Known shapes: plain, v1, 1.5.")
        if self.platform not in ("computer", "mobile"):
            raise UsageError(f"Unknown platform {self.platform!r}.", "Known platforms: computer, mobile.")
        if self.history_images < 1:
            raise UsageError(f"history_images is {self.history_images}.", "The current screenshot counts: give 1 or more.")


def build_messages(
    shape: PromptShape,
    instruction: str,
    guidance: str,
    history: Sequence[tuple[Any, str]],
    image: Any,
) -> list[Message]:
    """The conversation that the next reply is generated from, in the chat format of transformers' Qwen2-VL processors.

    Args:
        shape: How this checkpoint wants to be asked.
        instruction: The task, verbatim.
        guidance: What was learned in words; "" for none.
        history: Earlier (screenshot, reply) pairs of this attempt, oldest first; a screenshot may be None.
        image: The current screenshot (PIL image, array or data URL: it is passed through as it is).

    Returns:
        Messages: system (not for ``plain``), user text, the earlier replies (each after its screenshot while that is still shown),
        the current screenshot.
    """
    messages: list[Message] = [] if shape.kind == "plain" else [_message("system", SYSTEM)]
    messages.append(_message("user", user_text(shape, instruction, guidance)))
    first_reply = 0 if shape.history_replies is None else max(0, len(history) - shape.history_replies)
    first_image = len(history) - (shape.history_images - 1)
    for index, (screenshot, reply) in enumerate(history):
        if index < first_reply:
            continue
        if index >= first_image and screenshot is not None:
            messages.append(_image_message(screenshot))
        text = neutralise(reply)
        messages.append(_message("assistant", with_box_tokens(text) if shape.kind == "v1" else text))
    messages.append(_image_message(image))
    return messages


def user_text(shape: PromptShape, instruction: str, guidance: str) -> str:
    """The user's text: the task, and after it the guidance in a fenced block of its own."""
    if shape.kind == "plain":
        return f"{instruction}\n```\n{_fenceable(guidance)}\n```" if guidance.strip() else instruction
    task = f"{instruction}\n\n```guidance\n{_fenceable(guidance)}\n```" if guidance.strip() else instruction
    template, _ = wording(shape.kind, shape.platform)
    # The task goes in last: it may itself contain "{language}".
    return template.replace("{language}", shape.language).replace("{instruction}", task)


@functools.cache
def wording(kind: Kind, platform: Platform) -> tuple[str, str]:
    """(template with ``{language}`` and ``{instruction}``, its source).

    The source is ``ui-tars package``, ``built-in skeleton`` or ``instruction only``.
    """
    if kind == "plain":
        return "{instruction}", "instruction only"
    actions = (ACTIONS_V1 if kind == "v1" else ACTIONS_15)[platform]
    official = _official("computer" if kind == "v1" else platform)  # v1 has one frame for both platforms
    if official is None:
        return SKELETON.replace("{actions}", actions), "built-in skeleton"
    if kind == "v1":
        official = official.replace("the task.\n", "the task. \n", 1)  # v1's role sentence ends in a blank
        official = re.sub(r"(## Action Space\n)[\s\S]*?(\n## Note)", lambda m: f"{m[1]}\n{actions}\n\n{m[2]}", official)
    return official, "ui-tars package"


def _official(platform: Platform) -> str | None:
    try:
        from ui_tars import prompt
    except ImportError:
        return None
    text: str | None = getattr(prompt, "COMPUTER_USE_DOUBAO" if platform == "computer" else "MOBILE_USE_DOUBAO", None)
    return text if text and "{instruction}" in text and "{language}" in text else None


_BOX = re.compile(r"((?:start|end)_box\s*=\s*)(['\"])\s*(\([^()<>'\"]*\))\s*\2")


def with_box_tokens(reply: str) -> str:
    """Put ``<|box_start|>``/``<|box_end|>`` back around the boxes of a reply (decoding drops them); idempotent."""
    return _BOX.sub(r"\1\2<|box_start|>\3<|box_end|>\2", reply)


_CONTROL = re.compile(r"<\|(?!box_start\|>|box_end\|>)([A-Za-z0-9_]*)\|>")


def neutralise(text: str) -> str:
    """Break chat-control tokens (``<|im_end|>``, ``<|image_pad|>``, ...) in text that is not ours: it must not end its own turn."""
    return _CONTROL.sub(r"<| \1 |>", text)


def _fenceable(guidance: str) -> str:
    """Guidance that cannot close its own fence: any run of three or more backticks becomes as many apostrophes."""
    return re.sub(r"`{3,}", lambda m: "'" * len(m[0]), neutralise(guidance.strip("\n")))


def _message(role: str, text: str) -> Message:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _image_message(image: Any) -> Message:
    return {"role": "user", "content": [{"type": "image", "image": image}]}

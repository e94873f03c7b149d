"""UI-Venus-1.5: thinking, one call such as ``Click(box=(x,y))`` and a conclusion; points in thousandths.

Its prompts are not in this package: the repository says Apache 2.0 in one place and "for research and educational purposes only" in
another.  ``model.prompt_file`` names the text, with ``{user_task}`` and ``{previous_actions}`` as the official one has them.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from envs import actions as act
from envs.actions import Action
from envs.errors import InvalidActionError, UsageError
from policies.families.base import Family, Recipe, Source, Turn, filled
from policies.families.calls import Call, Scanner
from policies.families.keys import key_list
from policies.families.messages import Message, Platform, message, neutralise, with_guidance
from policies.families.points import parse_point, seconds_of, swipe_direction, unescape
from policies.families.reply import Frame, Reply, bounded, shorten
from policies.families.settings import FamilySettings
from policies.families.tool_calls import address

REVISION = "c3a1442c3c4501af18c1"
AGENT = Source(
    "inclusionAI/UI-Venus", "models/navigation/ui_venus_navi_agent.py", REVISION,
    "order, history; utils.py for the prompts; Venus_framework/policy/ui_venus_policy.py for the coordinates",
)  # fmt: skip
README = Source("inclusionAI/UI-Venus", "README.md", REVISION, "AndroidWorld 77.6; scripts/run_navi.sh for the settings")


class Official(NamedTuple):
    """An official text: the constant that holds it, and its SHA-256 without the line breaks at its end."""

    constant: str
    digest: str


OFFICIAL: dict[Platform, Official] = {
    "computer": Official("WEB_USER_PROMPT", "a45c6725c48da78908d71a0c0e6cf3a192be455142c4f94c84aa406e4cd1d878"),
    "mobile": Official("MOBILE_USER_PROMPT", "3ac1bd38f9e918882bc5d3d7de4adc420c5fa72844a91969a86f09ab64928fb9"),
}
log = logging.getLogger(__name__)


class UIVenus15(Family):
    """One message a step: the task, the last five steps as text, the screenshot."""

    name = "ui-venus-1.5"
    title = "UI-Venus-1.5"
    architectures = frozenset({"qwen3_vl", "qwen3_vl_moe"})
    sources = (AGENT, README)
    checkpoints = {
        "ui-venus-1.5-2b": "inclusionAI/UI-Venus-1.5-2B",
        "ui-venus-1.5-8b": "inclusionAI/UI-Venus-1.5-8B",
        "ui-venus-1.5-30b-a3b": "inclusionAI/UI-Venus-1.5-30B-A3B",
    }
    recognised = re.compile(r"ui-?venus-?1[.-]?5.*")
    defaults = FamilySettings(history_images=1, history_replies=5, max_new_tokens=2048, min_pixels=65536, max_pixels=12_845_056)
    factor = 32
    recipes = (
        Recipe("ui-venus-1.5-30b-a3b", "androidworld", "androidworld", 77.6, None, README,
               {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 2048, "repetition_penalty": 1.05},
               note="Needs model.prompt_file: MOBILE_USER_PROMPT of models/navigation/utils.py."),
    )  # fmt: skip
    limits = ("The prompt's text comes from the user (model.prompt_file): its licence is not clear.",)

    def messages(self, turn: Turn) -> list[Message]:
        kept = turn.settings.history_replies
        recent = turn.history if kept is None else turn.history[max(0, len(turn.history) - kept) :]
        done = [
            f"Step {n}: <think>{_between(reply, 'think')}</think><action>{_between(reply, 'action')}</action>"
            for n, reply in enumerate(neutralise(reply) for _, reply in recent)
        ]
        task = with_guidance(turn.instruction, turn.guidance)
        asked = filled(_prompt(turn.settings.prompt_file, turn.platform), user_task=task, previous_actions="\n".join(done))
        return [message("system", "You are a helpful assistant."), message("user", asked, turn.screen)]

    def parse(self, text: str, frame: Frame) -> Reply:
        thought, written = self.split(bounded(text))
        call = next(Scanner(written, BARE, mend=not frame.cut or "</action>" in text).calls(), None)
        if call is None:
            raise InvalidActionError(
                f"No action in the reply: {shorten(written or text)!r}." if text.strip() else "The reply is empty."
            )
        builder = BUILDERS.get(call.name.replace("_", ""))
        if builder is None:
            raise InvalidActionError(f"Unknown action {shorten(call.name)!r}.")
        return Reply(thought, written[: call.end], tuple(builder(call, frame)))

    def split(self, text: str) -> tuple[str, str]:
        thought = _between(text, "think")
        said = text.partition("</think>")[2] or text  # what it considers in its thought is no action
        if "<action>" in said:
            return thought, _between(said, "action").strip()
        return thought, said.strip()


def _between(text: str, tag: str) -> str:
    return text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0].strip("\n")


@functools.cache
def _prompt(path: str, platform: Platform) -> str:
    if not path:
        raise UsageError(
            "UI-Venus's prompt is not part of this package.",
            "Save MOBILE_USER_PROMPT or WEB_USER_PROMPT of inclusionAI/UI-Venus models/navigation/utils.py, and name the file: "
            "--set model.prompt_file=FILE.",
        )
    try:
        text = Path(path).expanduser().read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"The prompt {path} cannot be read: {error}.") from error
    if "{user_task}" not in text or "{previous_actions}" not in text:
        raise UsageError(f"{path} is not a prompt of UI-Venus.", "It needs {user_task} and {previous_actions}.")
    if hashlib.sha256(text.rstrip("\n").encode()).hexdigest() != OFFICIAL[platform].digest:
        log.warning(
            "%s is not %s of %s: scores are not those of the official agent.", path, OFFICIAL[platform].constant, AGENT.repository
        )
    return text


# -- actions -------------------------------------------------------------------------------------------------------------------


def _value(call: Call, *keys: str) -> str | None:
    return next((value for wanted in (*keys, "") for key, value in call.arguments if key == wanted and value.strip()), None)


def _named(call: Call, *keys: str) -> str | None:
    return next((value for wanted in keys for key, value in call.arguments if key == wanted), None)


def _point(call: Call, frame: Frame, *keys: str) -> tuple[float, float]:
    value = _value(call, *keys)
    bare = [written for key, written in call.arguments if not key]
    if len(bare) in (2, 4) and value == bare[0] and "," not in value:  # Click(100, 200)
        value = ",".join(bare)
    if value is None:
        raise InvalidActionError(f"{call.name} without a point.")
    return frame.pixel(*parse_point(value))


def _pointed(cls: Callable[[float, float], Action]) -> Callable[[Call, Frame], list[Action]]:
    return lambda call, frame: [cls(*_point(call, frame, "box", "point"))]


def _drag(call: Call, frame: Frame) -> list[Action]:
    positional = [value for key, value in call.arguments if not key]
    if len(positional) == 2:
        return [act.Drag(*frame.pixel(*parse_point(positional[0])), *frame.pixel(*parse_point(positional[1])))]
    return [act.Drag(*_point(call, frame, "start"), *_point(call, frame, "end"))]


def _scroll(call: Call, frame: Frame) -> list[Action]:
    named = {key for key, value in call.arguments if value.strip(" ()[]")}  # its agent takes start=() for none
    if {"start", "end"} <= named:
        start, end = _point(call, frame, "start"), _point(call, frame, "end")
        return [act.Scroll(*start, swipe_direction(start, end), *end)]
    word = (_value(call, "direction") or "").strip().lower()
    direction = next((d for d in act.DIRECTIONS if d == word), None)
    if direction is None:
        raise InvalidActionError("Scroll needs start and end, or a direction.")
    return [act.Scroll(frame.width / 2, frame.height / 2, direction)]


def _type(call: Call, frame: Frame) -> list[Action]:
    if not call.arguments:
        raise InvalidActionError("Type without content.")
    text = unescape(_value(call, "content") or "")
    ends = text.endswith("\n")
    # The web's prompt says that Enter is pressed after typing; a phone has PressEnter().
    return [act.Type(text[:-1] if ends else text, ends or frame.platform == "computer")]


def _launch(call: Call, frame: Frame) -> list[Action]:
    named = {key: value.strip() for key, value in call.arguments if value.strip()}
    if "url" in named:
        return address(named["url"])
    name = named.get("app", named.get("", ""))
    if not name:
        raise InvalidActionError("Launch without an app.")
    return [act.OpenApp(unescape(name))]


def _hotkey(call: Call, frame: Frame) -> list[Action]:
    written = _value(call, "keys", "key") or ""
    return [act.Hotkey(key_list(re.findall(r"[^\s,\[\]'\"]{1,40}", written[:200])))]


def _words(call: Call) -> str:
    return unescape(_value(call, "content") or "")


BARE = ("wait", "pressback", "presshome", "pressenter", "pressrecent", "finished")
BUILDERS: dict[str, Callable[[Call, Frame], list[Action]]] = {
    **dict.fromkeys(("click", "tap"), _pointed(act.Click)),
    "doubleclick": _pointed(act.DoubleClick),
    "longpress": lambda c, f: [act.LongPress(*_point(c, f, "box", "point"), seconds_of(_named(c, "time", "duration")))],
    "hover": _pointed(act.Hover),
    "drag": _drag,
    "scroll": _scroll,
    "type": _type,
    "launch": _launch,
    "hotkey": _hotkey,
    "wait": lambda c, f: [act.Wait(seconds_of(_value(c, "time", "duration", "seconds")))],
    "finished": lambda c, f: [act.Finished(_words(c))],
    "calluser": lambda c, f: [act.Answer(_words(c)) if f.platform == "mobile" else act.Finished(_words(c))],
    "pressback": lambda c, f: [act.PressBack() if f.platform == "mobile" else act.Hotkey(("alt", "left"))],
    "presshome": lambda c, f: [act.PressHome()],
    "pressenter": lambda c, f: [act.Hotkey(("enter",))],
    "pressrecent": lambda c, f: [act.Hotkey(("recents",))],
}

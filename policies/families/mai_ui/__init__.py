"""MAI-UI: a phone's agent that thinks and calls ``mobile_use``; points from 0 to 999."""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from envs.errors import InvalidActionError
from policies.families import call_text, tool_calls
from policies.families.base import Family, Recipe, Source, Turn, text_file
from policies.families.messages import Message, message, neutralise, with_guidance
from policies.families.reply import Frame, Reply
from policies.families.settings import FamilySettings

REVISION = "4dd07b9e910a294f0014"
AGENT = Source("Tongyi-MAI/MAI-UI", "src/mai_naivigation_agent.py", REVISION, "order, history; prompt.py for the system prompt")
VENUS = Source("inclusionAI/UI-Venus", "README.md", "c3a1442c3c4501af18c1", "table of navigation benchmarks")
DIALECT = tool_calls.Dialect(answer_ends=False)
SCALE = 999
SAMPLING = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 2048}


class MAIUI(Family):
    """Earlier replies as text, the last two with their screenshots."""

    name = "mai-ui"
    title = "MAI-UI"
    architectures = frozenset({"qwen3_vl", "qwen3_vl_moe"})
    platforms = ("mobile",)
    sources = (AGENT,)
    checkpoints = {"mai-ui-2b": "Tongyi-MAI/MAI-UI-2B", "mai-ui-8b": "Tongyi-MAI/MAI-UI-8B"}
    recognised = re.compile(r"mai-?ui.*")
    defaults = FamilySettings(
        coordinates="relative-999", history_images=3, max_new_tokens=2048, min_pixels=65536, max_pixels=16384 * 32**2
    )
    factor = 32
    recipes = (
        Recipe("mai-ui-8b", "androidworld", "androidworld", 70.7, None, VENUS, SAMPLING,
               note="Settings of MAI-UI's own agent; the number as UI-Venus's README cites it."),
    )  # fmt: skip

    def messages(self, turn: Turn) -> list[Message]:
        messages = [message("system", _text("mobile.txt")), message("user", with_guidance(turn.instruction, turn.guidance))]
        for index, (screen, reply) in enumerate(turn.history):
            if index >= turn.first_image and screen is not None:
                messages.append(message("user", screen))
            messages.append(message("assistant", neutralise(rewritten(reply))))
        messages.append(message("user", turn.screen))
        return messages

    def parse(self, text: str, frame: Frame) -> Reply:
        return tool_calls.parse(_thinking(text), frame, DIALECT)

    def split(self, text: str) -> tuple[str, str]:
        return tool_calls.split(_thinking(text))


def _thinking(text: str) -> str:
    """Models that think write ``</think>`` where the others write ``</thinking>``."""
    return "<thinking>" + text.replace("</think>", "</thinking>") if "</think>" in text and "</thinking>" not in text else text


def rewritten(reply: str) -> str:
    """An earlier reply as MAI-UI's own agent gives it back: from the thought and the call that it read there.

    Points lose their fractions on the way, and those of a drag stay shares of the screen: so it is done there, and so it was scored.
    A reply that it could not have read is given back as it is.
    """
    thinking, tag, rest = _thinking(reply.strip()).partition("</thinking>")
    called = rest.partition(call_text.OPEN)[2].partition(call_text.CLOSE)[0].strip().strip('"')
    if not tag or not called:
        return reply
    try:
        arguments = dict(call_text.arguments_of(called)[0])
    except InvalidActionError:
        return reply
    for key in ("coordinate", "start_coordinate", "end_coordinate"):
        if key in arguments:
            shares = _shares(arguments[key])
            if shares is None:
                return reply
            arguments[key] = [int(share * SCALE) for share in shares] if key == "coordinate" else shares
    call = json.dumps({"name": "mobile_use", "arguments": arguments}, separators=(",", ":"))
    thought = thinking.rpartition("<thinking>")[2].strip().strip('"')
    return f"<thinking>\n{thought}\n</thinking>\n<tool_call>\n{call}\n</tool_call>"


def _shares(value: Any) -> list[float] | None:
    numbers = value if isinstance(value, list) else []
    if len(numbers) not in (2, 4) or not all(isinstance(n, int | float) and abs(n) < 1e6 for n in numbers):
        return None
    x, y = numbers if len(numbers) == 2 else ((numbers[0] + numbers[2]) / 2, (numbers[1] + numbers[3]) / 2)
    return [x / SCALE, y / SCALE]


@functools.cache
def _text(name: str) -> str:
    return text_file(__file__, name)

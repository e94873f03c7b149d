"""Qwen3-VL as it is: ``Action: …`` and one call of ``computer_use``, or of ``mobile_use``."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from policies.families import tool_calls
from policies.families.base import Family, Recipe, Source, Turn, text_file
from policies.families.messages import Message, Platform, message, neutralise, with_guidance
from policies.families.reply import Frame, Reply
from policies.families.settings import FamilySettings
from policies.families.windowed import low_level, windowed

OSWORLD = Source(
    "xlang-ai/OSWorld",
    "mm_agents/qwen3vl_agent.py",
    "blob 560f2c3013e5",
    "computer: system prompt, order, history of 4 turns, sampling",
)
COOKBOOK = Source("QwenLM/Qwen3-VL", "cookbooks/mobile_agent.ipynb", "96588727e44c78b25ba0", "mobile: system prompt and query")
DIALECT = tool_calls.Dialect(answer_ends=False)

ASKED = """
Please generate the next move according to the UI screenshot, instruction and previous actions.

Instruction: {instruction}

Previous actions:
{previous}"""


class Qwen3VL(Family):
    """The general model under its own agents' prompts."""

    name = "qwen3-vl"
    title = "Qwen3-VL (Instruct, Thinking)"
    architectures = frozenset({"qwen3_vl", "qwen3_vl_moe"})
    sources = (OSWORLD, COOKBOOK)
    checkpoints = {
        "qwen3-vl-4b": "Qwen/Qwen3-VL-4B-Instruct",
        "qwen3-vl-8b": "Qwen/Qwen3-VL-8B-Instruct",
        "qwen3-vl-32b": "Qwen/Qwen3-VL-32B-Instruct",
        "qwen3-vl-30b-a3b": "Qwen/Qwen3-VL-30B-A3B-Instruct",
    }
    recognised = re.compile(r"qwen3-?vl.*")
    defaults = FamilySettings(
        coordinates="relative-999", history_images=5, max_new_tokens=32768, min_pixels=65536, max_pixels=16 * 16 * 4 * 12800
    )
    factor = 32
    general = True
    recipes = (
        Recipe("qwen3-vl-8b", "osworld-verified", "osworld", None, 100, OSWORLD,
               {"temperature": 0.0, "top_p": 0.9, "max_new_tokens": 32768},
               note="The runner's settings; the source gives no number."),
    )  # fmt: skip
    limits = ("On a phone only the current screenshot is shown, as in the cookbook.",)

    def messages(self, turn: Turn) -> list[Message]:
        return _mobile(turn) if turn.platform == "mobile" else asked_windowed(turn, _text("computer.txt"))

    def parse(self, text: str, frame: Frame) -> Reply:
        return tool_calls.parse(text, frame, DIALECT)

    def split(self, text: str) -> tuple[str, str]:
        return tool_calls.split(text)

    def source_of(self, platform: Platform) -> Source:
        return OSWORLD if platform == "computer" else COOKBOOK


def asked_windowed(turn: Turn, system: str, typed: str = "typewrite") -> list[Message]:
    """The conversation of Qwen3-VL's agent on OSWorld, and of EvoCUA's; ``typed`` as in :func:`low_level`."""

    def text(before: Sequence[str]) -> str:
        steps = [f"Step {number}: {low_level(reply, typed)}" for number, reply in enumerate(before, 1)]
        instruction = with_guidance(turn.instruction, turn.guidance)
        return ASKED.replace("{previous}", "\n".join(steps) or "None").replace("{instruction}", instruction)

    return windowed(turn, system, text, text_first=False)


def _mobile(turn: Turn) -> list[Message]:
    done = "".join(
        f"Step {number}: {low_level(neutralise(reply), 'type').replace(chr(34), '')}; "
        for number, (_, reply) in enumerate(turn.history, 1)
    )
    query = (
        f"The user query: {with_guidance(turn.instruction, turn.guidance)}.\n"
        f"Task progress (You have done the following operation on the current device): {done}.\n"
    )
    return [message("system", _text("mobile.txt")), message("user", query, turn.screen)]


@functools.cache
def _text(name: str) -> str:
    return text_file(__file__, name)

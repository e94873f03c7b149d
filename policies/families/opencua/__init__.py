"""OpenCUA: a thought, an action in words, and PyAutoGUI code, which is parsed and never run.

Its architecture (Qwen2.5-VL with 1-D rotary positions and Kimi's tokenizer) is not part of transformers: it is asked where
it is served, ``openai:opencua-7b``.
"""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar

from policies.families import code_calls
from policies.families.base import Family, Recipe, Source, Turn, filled, text_file
from policies.families.messages import Message, message, neutralise, with_guidance
from policies.families.reply import Frame, Reply
from policies.families.settings import FamilySettings

PROMPTS = Source(
    "xlang-ai/OSWorld",
    "mm_agents/opencua/prompts.py",
    "blob aceb3b720f33",
    "system prompts; opencua_agent.py for order and history",
)
SCORES = Source("xlang-ai/OpenCUA", "model/README.md", "1d70f20663dcaa01f10c", "table of OSWorld-Verified; command in README.md")
SAMPLING = {"temperature": 0.0, "top_p": 0.9, "max_new_tokens": 2048}
AGAIN: dict[str, Any] = {"reask": 4, "reask_temperature": 0.2}
"""Five tries, the later ones warmer (its agent in OSWorld, ``mm_agents/opencua/opencua_agent.py``)."""
COORDINATES = Source("xlang-ai/OpenCUA", "model/README.md", "1d70f20663dcaa01f10c", "which models count in shares of the screen")
NOTE = "Mean of three runs; upstream waits 5 s after each action."


def stepwise(turn: Turn, system: str) -> list[Message]:
    """System, the steps before the window as one text, (screenshot, action) pairs of the window, the screenshot with the task."""
    messages = [message("system", system)]
    window, before = turn.settings.history_images, list[str]()
    for index, (screen, reply) in enumerate(turn.history):
        said = f"# Step {index + 1}:\n## Action:\n{neutralise(code_calls.sections(reply).action)}\n"
        if index > len(turn.history) - window:
            if screen is not None:
                messages.append(message("user", screen))
            messages.append(message("assistant", said))
            continue
        before.append(said)
        if index == len(turn.history) - window:
            messages.append(message("assistant", "\n".join(before)))
    task = (
        f"# Task Instruction:\n{with_guidance(turn.instruction, turn.guidance)}\n\nPlease generate the next move according to the "
        "screenshot, task instruction and previous steps (if provided).\n"
    )
    messages.append(message("user", turn.screen, task))
    return messages


class OpenCUA(Family):
    """OpenCUA-72B: sections with headings, and a password in the prompt."""

    name = "opencua"
    title = "OpenCUA (72B)"
    platforms = ("computer",)
    sources: ClassVar[tuple[Source, ...]] = (PROMPTS,)
    recognised = re.compile(r"opencua-72b.*")
    defaults = FamilySettings(
        coordinates="absolute-resized", history_images=3, max_new_tokens=2048, min_pixels=3136, max_pixels=12_845_056
    )
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("openai:opencua-72b", "osworld-verified", "osworld", 45.0, 100, PROMPTS, SAMPLING, AGAIN,
               note=NOTE + " The number is the leaderboard's; the source above has the settings."),
    )  # fmt: skip

    def messages(self, turn: Turn) -> list[Message]:
        return stepwise(turn, system_v2(turn.settings.password))

    def parse(self, text: str, frame: Frame) -> Reply:
        return code_calls.parse(text, frame)

    def split(self, text: str) -> tuple[str, str]:
        found = code_calls.sections(text)
        return found.thought, found.code


class OpenCUAV1(OpenCUA):
    """OpenCUA-7B and 32B: the older system prompt."""

    name = "opencua-v1"
    title = "OpenCUA (7B, 32B)"
    recognised = re.compile(r"opencua-(?:7b|32b).*")
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("openai:opencua-7b", "osworld-verified", "osworld", 26.6, 100, SCORES, SAMPLING, AGAIN, note=NOTE),
        Recipe("openai:opencua-32b", "osworld-verified", "osworld", 34.8, 100, SCORES, SAMPLING, AGAIN, note=NOTE),
        Recipe("openai:opencua-7b", "osworld-verified-15", "osworld", 24.3, 15, SCORES, SAMPLING, AGAIN, note=NOTE),
        Recipe("openai:opencua-32b", "osworld-verified-15", "osworld", 29.7, 15, SCORES, SAMPLING, AGAIN, note=NOTE),
    )

    def messages(self, turn: Turn) -> list[Message]:
        return stepwise(turn, _text("v1_computer.txt"))


class OpenCUARelative(OpenCUAV1):
    """OpenCUA-Qwen2-7B and A3B: asked as 7B and 32B are, but their points are shares of the screen."""

    name = "opencua-relative"
    title = "OpenCUA (Qwen2-7B, A3B)"
    sources = (PROMPTS, COORDINATES)
    recognised = re.compile(r"opencua-(?:qwen2-7b|a3b).*")
    defaults = OpenCUA.defaults.model_copy(update={"coordinates": "relative-1"})
    recipes = ()


def system_v2(password: str) -> str:
    """OpenCUA-72B's system prompt; EvoCUA's S1 is the same text."""
    return filled(_text("v2_computer.txt"), password=password)


@functools.cache
def _text(name: str) -> str:
    return text_file(__file__, name)

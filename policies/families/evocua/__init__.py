"""EvoCUA: tool calls (S2), or reasoning and PyAutoGUI code (S1)."""

from __future__ import annotations

import functools
import re

from policies.families import code_calls, tool_calls
from policies.families.base import Family, Recipe, Source, Turn, text_file
from policies.families.messages import Message
from policies.families.opencua import stepwise, system_v2
from policies.families.qwen3_vl import asked_windowed
from policies.families.reply import Frame, Reply
from policies.families.settings import FamilySettings, seen_size

REVISION = "4a0ad5fd4eb1d5b65966"
PROMPTS = Source("meituan/EvoCUA", "mm_agents/evocua/prompts.py", REVISION, "system prompts; evocua_agent.py for order and history")
README = Source("meituan/EvoCUA", "README.md", REVISION, "scores and the command of the evaluation")
DIALECT = tool_calls.Dialect(unescape=True)
SAMPLING = {"temperature": 0.01, "top_p": 0.9, "max_new_tokens": 32768}
NOTE = "Upstream waits 5 s after each action and turns a last step that ends nothing into FAIL (osworld.last_step_fail)."


class EvoCUA(Family):
    """S2, as its published scores were made."""

    name = "evocua"
    title = "EvoCUA (S2, tool calls)"
    architectures = frozenset({"qwen3_vl", "qwen3_vl_moe"})
    platforms = ("computer",)
    sources = (PROMPTS, README)
    checkpoints = {"evocua-8b": "meituan/EvoCUA-8B-20260105", "evocua-32b": "meituan/EvoCUA-32B-20260105"}
    recognised = re.compile(r"evocua(?!.*-s1).*")
    defaults = FamilySettings(
        coordinates="relative-999", history_images=5, max_new_tokens=32768, min_pixels=65536, max_pixels=16 * 16 * 4 * 12800
    )
    factor = 32
    recipes = (
        Recipe("evocua-8b", "osworld-verified", "osworld", 46.06, 50, README, SAMPLING, note=NOTE),
        Recipe("evocua-32b", "osworld-verified", "osworld", 56.7, 50, README, SAMPLING, note=NOTE),
    )

    def messages(self, turn: Turn) -> list[Message]:
        return asked_windowed(turn, _text("s2_computer.txt"), typed="press")  # its agent presses key by key

    def parse(self, text: str, frame: Frame) -> Reply:
        return tool_calls.parse(text, frame, DIALECT)

    def split(self, text: str) -> tuple[str, str]:
        return tool_calls.split(text)


class EvoCUAS1(Family):
    """S1: OpenCUA's layout; points are pixels of the screenshot at multiples of 28, whatever the model's own patches."""

    name = "evocua-s1"
    title = "EvoCUA (S1, PyAutoGUI code)"
    architectures = frozenset({"qwen3_vl", "qwen2_5_vl"})
    platforms = ("computer",)
    sources = (PROMPTS,)
    recognised = re.compile(r"evocua.*-s1.*")
    defaults = FamilySettings(
        coordinates="absolute-resized", history_images=3, max_new_tokens=32768, min_pixels=3136, max_pixels=12_845_056
    )
    factor = 32

    def messages(self, turn: Turn) -> list[Message]:
        return stepwise(turn, system_v2(turn.settings.password))

    def parse(self, text: str, frame: Frame) -> Reply:
        return code_calls.parse(text, frame)

    def split(self, text: str) -> tuple[str, str]:
        found = code_calls.sections(text)
        return found.thought, found.code

    def units(self, screen: tuple[int, int], seen: tuple[int, int], settings: FamilySettings) -> tuple[float, float]:
        if settings.coordinates != "absolute-resized":
            return settings.units(seen)
        width, height = seen_size(screen, settings, 28)
        return float(width), float(height)


@functools.cache
def _text(name: str) -> str:
    return text_file(__file__, name)

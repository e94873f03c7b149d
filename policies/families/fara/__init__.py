"""Fara-7B: a web agent that calls ``computer_use`` with pixels of the resized screenshot."""

from __future__ import annotations

import functools
import re

from policies.families import tool_calls
from policies.families.base import Family, Recipe, Source, Turn, filled, text_file
from policies.families.messages import Message, message, neutralise, with_guidance
from policies.families.reply import Frame, Reply
from policies.families.settings import FamilySettings

REVISION = "3f3f1fd82cc2769a6630"
AGENT = Source(
    "microsoft/fara", "src/fara/fara_agent.py", REVISION, "order, history; _prompts.py and qwen_helpers for the system prompt"
)
README = Source("microsoft/fara", "README.md", REVISION, "scores")
DIALECT = tool_calls.Dialect(enter=True)
NEXT = "Here is the next screenshot. Think about what to do next."


class Fara(Family):
    """Three screenshots; typing clicks first and presses Enter unless it says otherwise."""

    name = "fara"
    title = "Fara-7B"
    architectures = frozenset({"qwen2_5_vl"})
    platforms = ("computer",)
    sources = (AGENT, README)
    checkpoints = {"fara-7b": "microsoft/Fara-7B"}
    recognised = re.compile(r"fara-7b.*")
    defaults = FamilySettings(
        coordinates="absolute-resized", history_images=3, max_new_tokens=4096, min_pixels=3136, max_pixels=12_845_056
    )
    recipes = (
        Recipe("fara-7b", "web", "miniwob", None, 100, README, {"temperature": 0.0},
               note="Settings only: its published scores (WebVoyager 73.5, Online-Mind2Web 34.1) are of live websites."),
    )  # fmt: skip
    limits = (
        "The line with the page's address that its own agent gives with each screenshot is left out: no environment here says it.",
        "visit_url, web_search and history_back are done with the browser's keys (Ctrl+L, Alt+Left).",
    )

    def messages(self, turn: Turn) -> list[Message]:
        width, height = turn.seen
        tools = filled(_text("computer.txt"), width=str(width), height=str(height))
        messages = [message("system", "You are a helpful assistant." + tools)]
        task = with_guidance(turn.instruction, turn.guidance)
        for index, (screen, reply) in enumerate([*turn.history, (turn.screen, None)]):
            shown = screen is not None and (index >= turn.first_image)
            said = task if index == 0 else NEXT
            if shown:
                messages.append(message("user", screen, said))
            elif index == 0:
                messages.append(message("user", said))
            if reply is not None:
                messages.append(message("assistant", neutralise(reply)))
        return messages

    def parse(self, text: str, frame: Frame) -> Reply:
        return tool_calls.parse(text, frame, DIALECT)

    def split(self, text: str) -> tuple[str, str]:
        return tool_calls.split(text)


@functools.cache
def _text(name: str) -> str:
    return text_file(__file__, name)

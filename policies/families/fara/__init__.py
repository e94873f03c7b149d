"""Fara-7B and Fara-1.5: web agents that call ``computer_use``, with pixels of the resized screenshot or thousandths of the screen."""

from __future__ import annotations

import functools
import re
from typing import ClassVar

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
PROMPTS_15 = Source(
    "microsoft/fara",
    "src/fara/agents/fara/_prompts.py",
    "6505fefa7137151f44ec",
    "system prompt (14,258 characters, read in a fork at a675d6d61c)",
)
AGENT_15 = Source(
    "microsoft/fara",
    "src/fara/agents/fara/fara15_agent.py",
    "6505fefa7137151f44ec",
    "order, history, thousandths, how a number of a scroll counts",
)
CLICK_PIXELS = 53.0
"""A scroll goes by pixels of the page: Chromium on Linux scrolls so many per click of the wheel."""
SCROLL_PIXELS = 400.0
"""Fara-7B's agent takes the sign of the number only: ``page_up`` and ``page_down`` of its ``playwright_controller.py`` go so far."""
DIALECT = tool_calls.Dialect(enter=True, click_pixels=CLICK_PIXELS, scroll_pixels=SCROLL_PIXELS)
DIALECT_15 = tool_calls.Dialect(click_pixels=CLICK_PIXELS, scaled_scroll=True)
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
    recipes: ClassVar[tuple[Recipe, ...]] = (
        Recipe("fara-7b", "web", "miniwob", None, 100, README, {"temperature": 0.0},
               note="Settings only: its published scores (WebVoyager 73.5, Online-Mind2Web 34.1) are of live websites."),
    )  # fmt: skip
    limits: ClassVar[tuple[str, ...]] = (
        "The line with the page's address that its own agent gives with each screenshot is left out: no environment here says it.",
        "visit_url, web_search and history_back are done with the browser's keys (Ctrl+L, Alt+Left).",
    )

    def system(self, turn: Turn) -> str:
        """The system message."""
        width, height = turn.seen
        return "You are a helpful assistant." + filled(_text("computer.txt"), width=str(width), height=str(height))

    def messages(self, turn: Turn) -> list[Message]:
        messages = [message("system", self.system(turn))]
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


class Fara15(Fara):
    """Three screenshots, thousandths of the screen; its template's thinking is off, as its agents have it."""

    name = "fara-1.5"
    title = "Fara-1.5"
    architectures = frozenset({"qwen3_5"})
    sources = (PROMPTS_15, AGENT_15)
    checkpoints = {f"fara-1.5-{size}": f"microsoft/Fara1.5-{size.upper()}" for size in ("4b", "9b", "27b")}
    recognised = re.compile(r"fara-?1[.-]?5.*")
    factor = 32
    template = {"enable_thinking": False}
    defaults = FamilySettings(
        coordinates="relative-1000", history_images=3, max_new_tokens=4096, min_pixels=3136, max_pixels=12_845_056
    )
    recipes = tuple(
        Recipe(f"fara-1.5-{size}", "web", "miniwob", None, 100, AGENT_15, {"temperature": 0.0},
               note=f"Settings only: the scores that Microsoft Research published (WebVoyager {voyager}, Online-Mind2Web {mind2web}) "
               "are of live websites.")
        for size, voyager, mind2web in (("4b", 80.8, 57), ("9b", 86.6, 63.4), ("27b", 88.6, 72))
    )  # fmt: skip
    limits = (
        "Its identity names the 9B model whatever the size, as in its agent; the line with the page's address is left out where no "
        "environment says it, as its agent does.",
        "visit_url, web_search and history_back are done with the browser's keys; ask_user_question and read_page_answer_question are "
        "refused, as there is no user and no second model.",
        "A reply that cannot be read is a step, where its agent asks again with a sentence that says so.",
    )

    def system(self, turn: Turn) -> str:
        return _text("v15_computer.txt")

    def parse(self, text: str, frame: Frame) -> Reply:
        return tool_calls.parse(text, frame, DIALECT_15)


@functools.cache
def _text(name: str) -> str:
    return text_file(__file__, name)

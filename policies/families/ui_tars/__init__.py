"""UI-TARS: the open weights of the first generation and of 1.5, and the model of the same name behind the Doubao API.

Three kinds of prompt, told apart by what their checkpoints were trained on; one language of calls, read by ``parse.py``.
"""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar

from policies.families.base import Family, Recipe, Source, Turn, text_file
from policies.families.messages import Message, Platform
from policies.families.reply import Frame, Reply
from policies.families.settings import FamilySettings
from policies.families.ui_tars.parse import parse_reply, split_reply
from policies.families.ui_tars.prompt import conversation

OSWORLD = Source(
    "xlang-ai/OSWorld", "mm_agents/prompts.py", "blob f5c4b932b8ac",
    "UITARS_USR_PROMPT_THOUGHT with UITARS_CALL_USR_ACTION_SPACE (1) or UITARS_NORMAL_ACTION_SPACE (1.5); uitars_agent.py and "
    "uitars15_v1.py for order, history and sampling",
)  # fmt: skip
README_V1 = Source("bytedance/UI-TARS", "README_v1.md", "582f3a7ea5d285ee8ed9", "the prompt template for mobile")
PROMPTS_15 = Source("bytedance/UI-TARS", "prompts.py", "3472240", "MOBILE_USE of April 2025; COMPUTER_USE (model.variant=readme)")
DOUBAO = Source("bytedance/UI-TARS", "codes/ui_tars/prompt.py", "582f3a7ea5d285ee8ed9", "COMPUTER_USE_DOUBAO, MOBILE_USE_DOUBAO")
SCORES_V1 = Source("bytedance/UI-TARS", "README_v1.md", "582f3a7ea5d285ee8ed9", "table of online agents")
SCORES_15 = Source("bytedance/UI-TARS", "README.md", "582f3a7ea5d285ee8ed9", "comparison of model scales")

OFFICIAL: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9, "max_new_tokens": 1500, "frequency_penalty": 1.0}
OFFICIAL_15: dict[str, Any] = {**OFFICIAL, "max_new_tokens": 500}
DESKTOP_NOTE = "Official runs wait 3 s after each action and count a last step that ends nothing as FAIL (osworld.last_step_fail)."
AGAIN_15: dict[str, Any] = {"reask": 2, "reask_temperature": 1.0}
"""Three tries, the later ones at temperature 1 (OSWorld's ``mm_agents/uitars15_v1.py``)."""


def _recipe(policy: str, score: float, steps: int, *, setting: str = "osworld") -> Recipe:
    return Recipe(policy, setting, "osworld", score, steps, SCORES_V1, OFFICIAL, note=DESKTOP_NOTE)


class _Calls(Family):
    """What the three have in common."""

    texts: ClassVar[dict[str, str]]
    boxes: ClassVar[bool] = True

    def messages(self, turn: Turn) -> list[Message]:
        name = self.texts.get(f"{turn.platform}-{turn.settings.variant}", self.texts[turn.platform])
        return conversation(turn, _text(name), boxes=self.boxes)

    def parse(self, text: str, frame: Frame) -> Reply:
        return parse_reply(text, frame)

    def split(self, text: str) -> tuple[str, str]:
        return split_reply(text)


@functools.cache
def _text(name: str) -> str:
    return text_file(__file__, name)


class UITars1(_Calls):
    """UI-TARS 2B, 7B and 72B of January 2025."""

    name = "ui-tars-1"
    title = "UI-TARS (2B, 7B, 72B)"
    architectures = frozenset({"qwen2_vl"})
    sources = (OSWORLD, README_V1)
    checkpoints = {
        "ui-tars-2b-sft": "ByteDance-Seed/UI-TARS-2B-SFT",
        "ui-tars-7b-sft": "ByteDance-Seed/UI-TARS-7B-SFT",
        "ui-tars-7b-dpo": "ByteDance-Seed/UI-TARS-7B-DPO",
        "ui-tars-72b-sft": "ByteDance-Seed/UI-TARS-72B-SFT",
        "ui-tars-72b-dpo": "ByteDance-Seed/UI-TARS-72B-DPO",
    }
    recognised = re.compile(r"ui-tars(?:-1(?:\.0)?)?-(?:2b|7b|72b)(?:-(?:sft|dpo|gptq|awq).*)?")
    texts = {"computer": "v1_computer.txt", "mobile": "v1_mobile.txt"}
    defaults = FamilySettings()
    recipes = (
        _recipe("ui-tars-7b-sft", 17.7, 15), _recipe("ui-tars-7b-dpo", 18.7, 15), _recipe("ui-tars-72b-sft", 18.8, 15),
        _recipe("ui-tars-72b-dpo", 22.7, 15), _recipe("ui-tars-72b-dpo", 24.6, 50, setting="osworld-50"),
        Recipe("ui-tars-7b-sft", "androidworld", "androidworld", 33.0, None, SCORES_V1, OFFICIAL,
               note="The README gives no step budget: each task's own is taken."),
        Recipe("ui-tars-72b-sft", "androidworld", "androidworld", 46.6, None, SCORES_V1, OFFICIAL,
               note="The README gives no step budget: each task's own is taken."),
    )  # fmt: skip
    limits = ("The mobile prompt is English whatever model.language says: the official text has no place for another.",)

    def source_of(self, platform: Platform) -> Source:
        return OSWORLD if platform == "computer" else README_V1


class UITars15(_Calls):
    """UI-TARS-1.5-7B of April 2025: points are pixels of the resized picture."""

    name = "ui-tars-1.5"
    title = "UI-TARS-1.5 (7B)"
    architectures = frozenset({"qwen2_5_vl"})
    sources = (OSWORLD, PROMPTS_15)
    checkpoints = {"ui-tars-1.5-7b": "ByteDance-Seed/UI-TARS-1.5-7B"}
    recognised = re.compile(r"ui-?tars-?1[.-]?5(?:-7b)?(?:-.*)?")
    variants = ("osworld", "readme")
    texts = {"computer": "v15_computer.txt", "computer-readme": "v15_readme_computer.txt", "mobile": "v15_mobile.txt"}
    defaults = FamilySettings(
        coordinates="absolute-resized", min_pixels=100 * 28**2, max_pixels=16384 * 28**2, variant="osworld", max_new_tokens=1500
    )
    recipes = (
        Recipe("ui-tars-1.5-7b", "osworld", "osworld", 27.5, 100, SCORES_15, OFFICIAL_15, AGAIN_15, note=DESKTOP_NOTE),
        Recipe("ui-tars-1.5-7b", "osworld-15", "osworld", 24.5, 15,
               Source("xlang-ai/OpenCUA", "model/README.md", "1d70f20663dcaa01f10c", "table of OSWorld-Verified"), OFFICIAL_15, AGAIN_15,
               note="The number is OpenCUA's measurement on OSWorld-Verified; users report 21 to 24."),
    )  # fmt: skip

    def source_of(self, platform: Platform) -> Source:
        return OSWORLD if platform == "computer" else PROMPTS_15


class UITarsDoubao(_Calls):
    """The UI-TARS of the Doubao API: ``<point>`` in thousandths; its weights are not open."""

    name = "ui-tars-doubao"
    title = "Doubao's UI-TARS API"
    sources = (DOUBAO,)
    recognised = re.compile(r"doubao-(?:1[.-]5-)?(?:thinking-)?(?:vision-)?ui-tars.*|doubao-.*ui-tars.*")
    texts = {"computer": "doubao_computer.txt", "mobile": "doubao_mobile.txt"}
    boxes = False
    defaults = FamilySettings(min_pixels=100 * 28**2, max_pixels=16384 * 28**2)

"""GUI-Owl: 1.5 (Qwen3-VL; action and call) and the first generation (Qwen2.5-VL; thinking, call and conclusion)."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from policies.families import tool_calls
from policies.families.base import Family, Recipe, Source, Turn, filled, text_file
from policies.families.messages import Message, Platform, message, neutralise, with_guidance
from policies.families.reply import Frame, Reply
from policies.families.settings import FamilySettings
from policies.families.windowed import windowed

REVISION = "11cea575561fb7800b5f"
OSWORLD_15 = Source(
    "xlang-ai/OSWorld", "mm_agents/owl15_agent.py", "blob d258a91a21c6", "computer: OWL15_PROMPT, order, history of 5"
)
ANDROID_15 = Source(
    "X-PLUG/MobileAgent",
    "Mobile-Agent-v3.5/android_world_v3.5/android_world/agents/gui_owl.py",
    REVISION,
    "mobile: system prompt, order",
)
OSWORLD_1 = Source("xlang-ai/OSWorld", "mm_agents/owl_agent.py", "blob d9a8a683bf68", "computer: OWL_PROMPT, query, history")
ANDROID_1 = Source(
    "X-PLUG/MobileAgent", "Mobile-Agent-v3/android_world_v3/android_world/agents/mobile_agent_utils_new.py", REVISION,
    "mobile: query; function_call_mobile_answer.py and Qwen-Agent's Nous template for the system prompt",
)  # fmt: skip
SCORES_15 = Source("X-PLUG/MobileAgent", "Mobile-Agent-v3.5/README.md", REVISION, "end-to-end online benchmarks")
DIALECT = tool_calls.Dialect()
DESKTOP = {"temperature": 0.0, "top_p": 0.9, "max_new_tokens": 4096, "repetition_penalty": 1.05}
DESKTOP_NOTE = "Upstream waits 5 s after each action, and samples with top_k=1, which is greedy."


def _scores(policy: str, desktop: float, phone: float) -> tuple[Recipe, Recipe]:
    return (
        Recipe(policy, "osworld-verified", "osworld", desktop, 50, SCORES_15, DESKTOP, note=DESKTOP_NOTE),
        Recipe(policy, "androidworld", "androidworld", phone, None, SCORES_15, {"temperature": 0.0}),
    )


class _Owl(Family):
    def parse(self, text: str, frame: Frame) -> Reply:
        return tool_calls.parse(text, frame, DIALECT)

    def split(self, text: str) -> tuple[str, str]:
        return tool_calls.split(text)


class GUIOwl15(_Owl):
    """GUI-Owl-1.5: points in thousandths, five screenshots."""

    name = "gui-owl-1.5"
    title = "GUI-Owl-1.5"
    architectures = frozenset({"qwen3_vl", "qwen3_vl_moe"})
    sources = (OSWORLD_15, ANDROID_15, SCORES_15)
    checkpoints = {
        f"gui-owl-1.5-{size.lower()}{suffix}": f"mPLUG/GUI-Owl-1.5-{size}-{kind}"
        for size in ("2B", "4B", "8B", "32B")
        for kind, suffix in (("Instruct", ""), ("Thinking", "-thinking"))
        if kind == "Instruct" or size in ("8B", "32B")
    }
    recognised = re.compile(r"gui-?owl-?1[.-]?5.*")
    defaults = FamilySettings(history_images=5, max_new_tokens=4096, min_pixels=65536, max_pixels=2645 * 32**2)
    factor = 32
    recipes = (
        *_scores("gui-owl-1.5-2b", 43.5, 67.9), *_scores("gui-owl-1.5-4b", 48.2, 69.8), *_scores("gui-owl-1.5-8b", 52.3, 69.0),
        *_scores("gui-owl-1.5-8b-thinking", 52.9, 71.6), *_scores("gui-owl-1.5-32b", 56.5, 69.4),
        *_scores("gui-owl-1.5-32b-thinking", 56.0, 68.2),
    )  # fmt: skip

    def messages(self, turn: Turn) -> list[Message]:
        mobile = turn.platform == "mobile"
        asked = "Please generate the next move according to the UI screenshot, instruction and previous actions.\n\nInstruction: "
        asked += with_guidance(turn.instruction, turn.guidance)

        def text(before: Sequence[str]) -> str:
            # The desktop's agent cuts at a line's "Action:", the phone's at the last one anywhere.
            cut = "Action:" if mobile else "\nAction:"
            done = [f"Step{n}: {r.split('<tool_call>')[0].split(cut)[-1].strip()}" for n, r in enumerate(before, 1)]
            if mobile and not done:
                done = ["No previous action."]
            return f"{asked}\n\nPrevious actions:\n" + "\n".join(done) if done else asked

        return windowed(turn, _text("v15_mobile.txt" if mobile else "v15_computer.txt"), text, text_first=True)

    def source_of(self, platform: Platform) -> Source:
        return OSWORLD_15 if platform == "computer" else ANDROID_15


class GUIOwl(_Owl):
    """GUI-Owl-7B and 32B: points are pixels of the resized picture, conclusions as history."""

    name = "gui-owl"
    title = "GUI-Owl (7B, 32B)"
    architectures = frozenset({"qwen2_5_vl"})
    sources = (OSWORLD_1, ANDROID_1)
    checkpoints = {"gui-owl-7b": "mPLUG/GUI-Owl-7B", "gui-owl-32b": "mPLUG/GUI-Owl-32B"}
    recognised = re.compile(r"gui-?owl-(?:7b|32b).*")
    defaults = FamilySettings(
        coordinates="absolute-resized", history_images=3, max_new_tokens=2048, min_pixels=100 * 28**2, max_pixels=3000 * 28**2
    )
    recipes = (
        Recipe("gui-owl-7b", "osworld-verified", "osworld", None, 15, OSWORLD_1,
               {**DESKTOP, "max_new_tokens": 2048}, note="The runner's settings; the source gives no number."),
    )  # fmt: skip

    def messages(self, turn: Turn) -> list[Message]:
        width, height = turn.seen
        name = "v1_mobile.txt" if turn.platform == "mobile" else "v1_computer.txt"
        tools = filled(_text(name), width=str(width), height=str(height))
        system = message("system", "You are a helpful assistant." + tools)
        return [system, _phone(turn) if turn.platform == "mobile" else _desktop(turn)]

    def source_of(self, platform: Platform) -> Source:
        return OSWORLD_1 if platform == "computer" else ANDROID_1


def _desktop(turn: Turn) -> Message:
    done = "".join(f"Step {n}: {_conclusion(neutralise(reply))}\n" for n, (_, reply) in enumerate(turn.history, 1))
    text = f"""Please generate the next move according to the UI screenshot, instruction and previous actions.
    Instruction: {with_guidance(turn.instruction, turn.guidance)}
    Previous actions:
    {done or "No history. This is the first step."}
    Before answering, explain your reasoning step-by-step in <thinking></thinking> tags, and insert them before the <tool_call></tool_call> XML tags.
After answering, summarize your action in <conclusion></conclusion> tags, and insert them after the <tool_call></tool_call> XML tags."""  # noqa: E501
    shown = [
        part
        for index, (screen, _) in enumerate(turn.history)
        if index >= turn.first_image and screen is not None
        for part in (f"Screenshot of step {index + 1}:\n", screen)
    ]
    return message("user", text, *shown, "Current screenshot:\n", turn.screen)


def _phone(turn: Turn) -> Message:
    done = "".join(
        f"Step {n}: {_conclusion(neutralise(reply)).strip(chr(10)).replace(chr(10), '').replace(chr(34), '')}; "
        for n, (_, reply) in enumerate(turn.history, 1)
    )
    text = (
        f"The user query: {with_guidance(turn.instruction, turn.guidance)}"
        f"\nTask progress (You have done the following operation on the current device): {done}.\n"
        "\nBefore answering, explain your reasoning step-by-step in <thinking></thinking> tags, and insert them before the "
        "<tool_call></tool_call> XML tags."
        "\nAfter answering, summarize your action in <conclusion></conclusion> tags, and insert them after the "
        "<tool_call></tool_call> XML tags."
    )
    return message("user", text, turn.screen)


def _conclusion(reply: str) -> str:
    """What stands between the conclusion's tags; the thinking where there is no conclusion."""
    for tag in ("conclusion", "thinking"):
        if f"<{tag}>" in reply:
            return reply.split(f"<{tag}>")[-1].split(f"</{tag}>")[0]
    return ""


@functools.cache
def _text(name: str) -> str:
    return text_file(__file__, name)

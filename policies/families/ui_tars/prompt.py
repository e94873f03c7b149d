"""What UI-TARS reads: one user text, earlier (screenshot, reply) pairs, the current screenshot.

The texts beside this file are the official ones (Apache 2.0), byte for byte; ``tests/policies/test_official_prompts.py`` holds their
digests.
"""

from __future__ import annotations

import re

from policies.families.base import Turn, filled
from policies.families.messages import Message, message, neutralise, with_guidance

SYSTEM = "You are a helpful assistant."


def conversation(turn: Turn, template: str, *, boxes: bool) -> list[Message]:
    """System, the user's text, the earlier replies (each after its screenshot while that is still shown), the current screenshot.

    Args:
        turn: What is asked.
        template: The user's text, with ``{language}`` and ``{instruction}``.
        boxes: Put the box tokens back into earlier replies, as the official agents of the open weights do.
    """
    instruction = with_guidance(turn.instruction, turn.guidance)
    messages = [message("system", SYSTEM)]
    messages.append(message("user", filled(template, language=turn.settings.language, instruction=instruction)))
    kept = turn.settings.history_replies
    first_reply = 0 if kept is None else max(0, len(turn.history) - kept)
    for index, (screenshot, reply) in enumerate(turn.history):
        if index < first_reply:
            continue
        if index >= turn.first_image and screenshot is not None:
            messages.append(message("user", screenshot))
        text = neutralise(reply)
        messages.append(message("assistant", with_box_tokens(text) if boxes else text))
    messages.append(message("user", turn.screen))
    return messages


_BOX = re.compile(r"((?:start|end)_box\s{0,9}=\s{0,9})(['\"])\s{0,9}(\([^()<>'\"]{0,200}\))\s{0,9}\2")


def with_box_tokens(reply: str) -> str:
    """Put ``<|box_start|>``/``<|box_end|>`` back around the boxes of a reply (decoding drops them); idempotent."""
    return _BOX.sub(r"\1\2<|box_start|>\3<|box_end|>\2", reply)

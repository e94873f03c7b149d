"""The instruction and nothing else, in UI-TARS's language of calls: small policies trained on this project's own episodes."""

from __future__ import annotations

import re

from policies.families.base import Family, Turn
from policies.families.messages import Message, fenced, message, neutralise
from policies.families.reply import Frame, Reply
from policies.families.settings import FamilySettings
from policies.families.ui_tars.parse import parse_reply, split_reply


class Plain(Family):
    """``agentlab pretrain`` makes its checkpoints."""

    name = "plain"
    title = "Policies of `agentlab pretrain` (ui-tars-nano)"
    architectures = frozenset({"qwen2_vl"})
    recognised = re.compile(r"ui-tars-nano")
    defaults = FamilySettings(history_images=1, max_new_tokens=64)

    def messages(self, turn: Turn) -> list[Message]:
        guidance = fenced(turn.guidance, "") if turn.guidance.strip() else ""
        messages = [message("user", f"{turn.instruction}\n{guidance}" if guidance else turn.instruction)]
        kept = turn.settings.history_replies
        first_reply = 0 if kept is None else max(0, len(turn.history) - kept)
        for index, (screenshot, reply) in enumerate(turn.history):
            if index < first_reply:
                continue
            if index >= turn.first_image and screenshot is not None:
                messages.append(message("user", screenshot))
            messages.append(message("assistant", neutralise(reply)))
        messages.append(message("user", turn.screen))
        return messages

    def parse(self, text: str, frame: Frame) -> Reply:
        return parse_reply(text, frame)

    def split(self, text: str) -> tuple[str, str]:
        return split_reply(text)

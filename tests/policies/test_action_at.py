"""Where the action of a reply begins among its tokens: below another thought, a tried action is left out from there on."""

import re

import pytest
import torch

from envs.base import TaskSpec
from policies.families.plain import Plain
from policies.families.policy import ModelPolicy
from policies.families.registry import families
from policies.families.session import Draw
from policies.families.settings import FamilySettings
from policies.generation import Generation
from policies.sampling import SamplingConfig

TASK = TaskSpec("agentlab/miniwob-v0", "t", 0, max_steps=2)
CALL = '‖<tool_call>\n{"name": "computer_use", "arguments": {"action": "wait"}}\n</tool_call>'
CODE = (
    "# Step 1:\n## Thought:\nNot pyautogui.click(1, 2).\n\n## Action:\nClick.\n\n## Code:\n```python\n‖pyautogui.click(5, 6)\n```"
)
BOXES = "Thought: Not click(start_box='(5,6)').\nAction: ‖click(start_box='<|box_start|>(5,6)<|box_end|>')"
REPLIES = {
    **dict.fromkeys(("ui-tars-1", "ui-tars-1.5", "plain"), BOXES),
    "ui-tars-doubao": "Thought: go\nAction: ‖click(point='<point>500 500</point>')\n\nwait()",
    "qwen3-vl": "<think>\nI call <tool_call> later.\n</think>\n\nAction: Wait.\n" + CALL,
    **dict.fromkeys(("evocua", "gui-owl-1.5", "fara", "fara-1.5"), "Action: Wait.\n" + CALL),
    "gui-owl": f"<thinking>\nHm.\n</thinking>\n{CALL}\n<conclusion>\nWaited.\n</conclusion>",
    "mai-ui": f"Hm.\n</think>\n{CALL}",
    **dict.fromkeys(("evocua-s1", "opencua", "opencua-v1", "opencua-relative"), CODE),
    "ui-venus-1.5": "<think>Or Click(box=(1,2))</think>\n<action>\n‖Click(box=(5,6))\n</action>\n<conclusion>Clicked.</conclusion>",
}
"""A reply of every family with its special tokens, ‖ where its action begins."""
ODD = [
    ("ui-tars-1.5", BOXES.replace("\n", "\r\n") + "\r\n\r\nwait()"),
    ("ui-tars-doubao", "<think>Or\nAction: wait()\n</think>\nThought: go\nAction: ‖wait()"),
    ("gui-owl", '<thinking>\nHm.\n</thinking>\n‖<tool_call>\n{"name": "computer_use"}\n<conclusion>\nA call that is not closed.'),
    ("qwen3-vl", "<think>\nHm.</think>‖" + CALL.removeprefix("‖").replace("tool_call>\n", "tool_call><|odd|>\n")),
]


def pieces_of(text):
    """Texts of tokens: words with the blank before them, special tokens, single characters."""
    return re.findall(r"<\|\w+\|>|[ \t]?\w+|\s+|[^\w\s]", text)


@pytest.mark.parametrize(("family", "marked"), [*REPLIES.items(), *ODD], ids=[*REPLIES, *(f"{name}-odd" for name, _ in ODD)])
def test_the_action_begins_where_the_parser_says(engine, family, marked):
    policy = ModelPolicy("tiny", engine, families()[family], FamilySettings(), SamplingConfig())
    device = families()[family].platforms[0]
    policy.platform = device
    session = policy.open(TASK, seed=0)
    thought, action = marked.split("‖")
    pieces = pieces_of(f"{thought}{action}<|im_end|>")
    at = session._action_at(pieces)
    assert "".join(pieces[:at]).rstrip() == thought.rstrip() and "".join(pieces[at:]).lstrip() == f"{action}<|im_end|>"


def test_every_family_has_a_reply():
    assert set(REPLIES) == set(families())


def test_a_tried_action_is_spelled_as_it_was_drawn(engine):
    """Its text has lost the special tokens, and another spelling is another reply."""
    policy = ModelPolicy("tiny", engine, Plain(), FamilySettings(), SamplingConfig(no_repeat=True))
    session = policy.open(TASK, seed=0)
    session.begin("Click")
    special, ends = engine.tokenizer.convert_tokens_to_ids(["<|vision_start|>", "<|im_end|>"])
    texts = ("Thought: go\nAction: ", "click(start_box='", "(5,6)')")
    thought, name, place = (engine.tokens(text)[:-1].tolist() for text in texts)
    for last in ([ends], place[:1]):  # one reply that ended, one that was cut off
        drawn = torch.tensor([*thought, *name, special, *place, *last])
        text = engine._decode(drawn.tolist(), skip_special_tokens=True)
        session._keep(Draw(text, len(drawn), None, (1, 1), Generation(text, drawn, None, torch.zeros(0), "", 0)), 0)
        session.history.append((None, text))
    ended, cut = session._spellings(True)
    assert list(ended) == [*name, special, *place, ends] and special not in cut and cut[-1] == engine.tokenizer.eos_token_id

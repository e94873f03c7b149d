"""Where the pointer is when a step of an attempt is proposed again: where it was when the step was made."""

import pytest
import torch

from envs import actions as act
from envs.base import TaskSpec
from policies.families.policy import ModelPolicy
from policies.families.registry import families
from policies.families.settings import FamilySettings
from policies.generation import Generation
from policies.sampling import SamplingConfig

TASK = TaskSpec("agentlab/osworld-v0", "t", 0, max_steps=5)
SETTINGS = FamilySettings(coordinates="relative-1", min_pixels=400, max_pixels=409600)
CODE = [
    "pyautogui.moveTo(x=0.25, y=0.25)", "pyautogui.scroll(-5)", "pyautogui.dragTo(x=0.75, y=0.5)", "pyautogui.click()",
    "pyautogui.moveTo(x=0.9, y=0.9)",
]  # fmt: skip
PLACES = [(40, 55), (40, 55), (40, 55), (120, 110), (144, 198)]


@pytest.mark.parametrize("made", ["acted", "relived", "resumed"])
def test_a_step_is_proposed_where_it_was_made(engine, screens, monkeypatch, made):
    replies = [f"## Code:\n```python\n{line}\n```" for line in CODE]
    left = iter(replies * 2)

    def submit(request):
        text = next(left)
        return Generation(text, engine.tokens(text), None, torch.zeros(1), "stop", 1)

    monkeypatch.setattr(engine, "submit", submit)
    policy = ModelPolicy("tiny", engine, families()["opencua"], SETTINGS, SamplingConfig())
    session = policy.open(TASK, seed=0)
    session.begin("Do it")
    steps = [({"screenshot": screen}, text) for screen, text in zip(screens, replies, strict=True)]
    if made == "acted":
        assert [(a.x, a.y) for step, _ in steps for a in session.act(step).actions] == PLACES
    elif made == "relived":
        session.relive(steps)
    else:
        session.resume(steps, [(torch.zeros(1, 1), torch.tensor([1]))] * len(steps))
    found = [decision.actions[0] for decision in session.propose()]
    assert [(action.x, action.y) for action in found] == PLACES
    assert isinstance(found[2], act.Drag) and (found[2].end_x, found[2].end_y) == PLACES[3]

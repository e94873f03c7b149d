"""Replies that ran out of tokens: nothing is put at their ends, and what was complete before is done."""

import pytest
import torch
from test_action_at import REPLIES
from test_families import OFFICIAL, call, code

from envs import actions as act
from envs.base import TaskSpec
from envs.errors import InvalidActionError
from policies.families.policy import ModelPolicy
from policies.families.registry import families
from policies.families.reply import Frame
from policies.families.settings import FamilySettings
from policies.generation import Generation, Prompt
from policies.sampling import SamplingConfig

TASK = TaskSpec("agentlab/miniwob-v0", "t", 0, max_steps=2)


def read(family, text, *, cut):
    known = families()[family]
    return known.parse(text, Frame(1920, 1080, 2000, 2000, None, known.platforms[0], cut)).actions


SAMPLES = [(name, text) for name, text, _ in OFFICIAL] + [(name, text.replace("‖", "")) for name, text in REPLIES.items()]


@pytest.mark.parametrize(("family", "text"), SAMPLES, ids=[f"{name}-{n}" for n, (name, _) in enumerate(SAMPLES)])
def test_whatever_is_missing_at_the_end_of_a_reply_no_other_action_is_done(family, text):
    """Every beginning of an official reply: no action, or the first ones of the whole."""
    whole = read(family, text, cut=False)
    for end in range(len(text) + 1):
        try:
            actions = read(family, text[:end], cut=True)
        except InvalidActionError as error:
            assert len(error.message) < 200
            continue
        assert actions == whole[: len(actions)], text[:end]
    assert read(family, text, cut=True) == whole  # nothing is refused that is complete


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("opencua", "## Code:\n```python\npyautogui.click(x=500, y=3"),
        ("evocua", '<tool_call>\n{"name": "computer_use", "arguments": {"action": "scroll", "pixels": -5'),
        ("evocua", '<tool_call>\n{"name": "computer_use", "arguments": {"action": "left_click"}'),
        ("fara-1.5", "<tool_call>\n<function=computer_use>\n<parameter=action>\nleft_click\n</parameter>\n"),
        ("ui-tars-1", "Action: click(start_box='(500,500)'"),
        ("ui-tars-1", "Action: click(start_box=(500,500)"),
        ("ui-tars-1", "Action: type(content='hello'"),
        ("ui-tars-1", "Action: finished"),
        ("ui-tars-1", "Action: click>point>510 15"),
        ("ui-venus-1.5", "<think>T</think><action>Click(box=(500,500)"),
    ],
)
def test_a_bracket_that_is_missing_is_put_there_only_if_the_reply_ended_by_itself(family, text):
    assert read(family, text, cut=False)
    with pytest.raises(InvalidActionError, match="ran out of tokens"):
        read(family, text, cut=True)


@pytest.mark.parametrize(
    ("family", "text"),
    [
        ("opencua", code("pyautogui.click(500, 500") + "\nI wi"),
        ("evocua", call('{"action": "wait"') + "\n<tool_call>\n{"),
        ("ui-venus-1.5", "<think>T</think><action>PressEnter</action>\n<conclusion>Pre"),
        ("ui-tars-1", "Action: click(start_box='(500,500)')\n\nty"),
        ("ui-tars-1", "Action: click(point='<point>500 500</point>')\nNow"),
    ],
)
def test_an_action_that_had_ended_before_is_done(family, text):
    assert read(family, text, cut=True) == read(family, text, cut=False)


CLICK = "Action: click(start_box='(500,500)'"


@pytest.mark.parametrize(
    ("template", "text", "finish", "kind"),
    [
        ("", CLICK, "stop", act.Click),
        ("", CLICK, "length", act.Invalid),
        ("", CLICK + ")", "length", act.Click),
        ("<think>\n", f"Shall I?\n{CLICK})\nOr", "length", act.Invalid),
        ("<think>\n", f"Yes.</think>\n{CLICK})", "length", act.Click),
        ("", f"<think>Shall I?\n{CLICK})\nOr", "length", act.Invalid),
        ("", f"<thinking>Shall I?\n{CLICK})\nOr", "length", act.Invalid),
    ],
)
def test_a_model_that_runs_here_says_when_it_was_cut(engine, screens, monkeypatch, template, text, finish, kind):
    prompt = engine.prompt

    def begun(*args, **kwargs):
        made = prompt(*args, **kwargs)
        return Prompt(made.text + template, made.images)

    monkeypatch.setattr(engine, "prompt", begun)
    monkeypatch.setattr(engine, "submit", lambda request: Generation(text, torch.tensor([1]), None, torch.zeros(1), finish, 1))
    settings = FamilySettings(min_pixels=400, max_pixels=409600)
    session = ModelPolicy("tiny", engine, families()["ui-tars-1"], settings, SamplingConfig()).open(TASK, seed=0)
    session.begin("Click")
    assert isinstance(session.act({"screenshot": screens[0]}).actions[0], kind)

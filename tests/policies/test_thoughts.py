"""Vision-language models that think first: what they think is not what they write."""

import pytest
import torch

from policies.families.plain import Plain
from policies.families.policy import ModelPolicy
from policies.families.settings import FamilySettings
from policies.generation import Generation, Prompt
from policies.sampling import SamplingConfig


@pytest.mark.parametrize(
    ("template", "replies", "words"),
    [
        ("", ["Use the menu."], "Use the menu."),
        ("", ["<think>Hm.</think>\n\nUse the menu."], "Use the menu."),
        ("<think>\n", ["Hm. Is it <think> or </think>? No.</think>\n\nUse the menu."], "Use the menu."),
        ("<think>\n", ["Hm, hm, and", "Use the menu."], "Use the menu."),  # it takes all its tokens: ended, and asked again
        ("", ["<think>Hm, hm, and", "Use the menu."], "Use the menu."),
        ("<think>\n", ["Hm, hm, and", "<think>and on"], ""),
    ],
)
def test_words_of_its_own_are_what_follows_the_thought(engine, monkeypatch, template, replies, words):
    asked, left, prompt = [], iter(replies), engine.prompt

    def submit(request):
        asked.append(request.prompt.text)
        return Generation(next(left), torch.tensor([1]), None, torch.zeros(1), "length", 1)

    def begun(*args, **kwargs):
        made = prompt(*args, **kwargs)
        return Prompt(made.text + template, made.images)

    monkeypatch.setattr(engine, "submit", submit)
    monkeypatch.setattr(engine, "prompt", begun)
    policy = ModelPolicy("tiny", engine, Plain(), FamilySettings(), SamplingConfig())
    assert policy.complete("What went wrong?") == words
    assert next(left, None) is None
    if len(asked) == 2:
        assert asked[1] == f"{asked[0]}{replies[0]}\n</think>\n\n"

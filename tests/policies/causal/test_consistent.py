"""``sampling.consistent``: only answers to which the user would have said what was said, exactly, against enumeration."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from test_causal import save, task
from test_next_best import every_reply

import policies.exclusion
from envs.answer_forms import normal_form
from envs.answer_hints import could_be, hint, objection
from policies.registry import load_policy
from policies.sampling import SamplingConfig

KIND = "list"
LIMIT = 3
RIGHT = "w9, w31"
LATER = "Give a different answer. w1 w2"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("llama"))


def opened(folder, **sampling):
    settings = {"max_new_tokens": LIMIT, "consistent": True, **sampling}
    policy = load_policy(str(folder), sampling=SamplingConfig(**settings), device="cpu", instruct=False)
    policy.engine.model.get_input_embeddings().weight.data.mul_(0.05)  # near to uniform: much is left to choose
    return policy


def told_of(form):
    return f"{objection(hint(KIND, form, RIGHT))} {LATER}"


def attempts(session, numbers):
    """Replies of these attempts, the user answering each."""
    found = []
    for attempt in numbers:
        session.begin("w1 w2", attempt=attempt)
        found.append(session.act({"text": "w1 w2"}).text)
        session.blame((-1.0,))
        session.heed(told_of(form_of(found[-1])))
    return found


def form_of(text):
    return normal_form(KIND, text)


def left(texts, said):
    """The replies whose answer is open after these were given."""
    forms = [form_of(text) for text in said]
    return [t for t in texts if t.strip() and all(could_be(KIND, form_of(t), f, hint(KIND, f, RIGHT)) for f in forms)]


@torch.no_grad()
def probabilities(policy):
    """Of every text that ends within the limit, by enumeration."""
    session = policy.open(task(kind=KIND), seed=0)
    session.begin("w1 w2")
    every = every_reply(policy.engine, session._prompt(session.messages("w1 w2")), LIMIT)
    found: Counter[str] = Counter()
    for tokens, logprob in every.items():
        found[policy.engine._decode(list(tokens), skip_special_tokens=True)] += float(torch.tensor(logprob).exp())
    return found


def test_next_best_is_the_most_probable_answer_that_nothing_said_rules_out(folder):
    policy = opened(folder, next_best=True, beams=64)
    said, ranked = attempts(policy.open(task(kind=KIND), seed=0), range(1, 7)), probabilities(policy)
    for number, text in enumerate(said):
        open_ = left(ranked, said[:number])
        assert text in open_ and ranked[text] == pytest.approx(max(ranked[t] for t in open_), rel=1e-4)
    without = opened(folder, next_best=True, beams=64, consistent=False)
    assert attempts(without.open(task(kind=KIND), seed=0), range(1, 7)) != said


def test_what_is_drawn_is_never_ruled_out(folder, monkeypatch):
    monkeypatch.setattr(policies.exclusion, "MAX_DRAWS", 1000)  # one reply in fifty has two words here
    policy, given = opened(folder, no_repeat=True, temperature=1.0), ("w3 w5", "w7")
    open_ = set(left(probabilities(policy), given))
    drawn = set()
    for seed in range(5):
        session = policy.open(task(kind=KIND), seed=seed)
        for text in given:
            session.recall_replies([({"text": "w1 w2"}, text)])
            session.heed(told_of(form_of(text)))
        session.begin("w1 w2", attempt=3)
        drawn.add(session.act({"text": "w1 w2"}).text)
    assert drawn <= open_ and len(drawn) == 5


def test_a_session_that_is_taken_up_again_knows_what_was_said(folder):
    policy = opened(folder, no_repeat=True, temperature=1.0)
    said = attempts(policy.open(task(kind=KIND), seed=0), range(1, 5))
    again = policy.open(task(kind=KIND), seed=0)
    for text in said[:2]:
        again.recall_replies([({"text": "w1 w2"}, text)])
        again.heed(told_of(form_of(text)))
    assert attempts(again, range(3, 5)) == said[2:]


def test_without_it_nothing_said_changes_what_is_drawn(folder):
    policy = opened(folder, no_repeat=True, temperature=1.0, consistent=False)
    session, deaf = policy.open(task(kind=KIND), seed=0), policy.open(task(kind=KIND), seed=0)
    deaf.heed = lambda feedback: None
    assert attempts(session, range(1, 5)) == attempts(deaf, range(1, 5)) and session._hints == []

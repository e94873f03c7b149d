"""Thinking models: a budget of thought, the answer after it, and what is learned of both; Qwen3's architecture, narrow and random."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from envs.actions import Answer, Invalid
from policies.causal.load import load_engine
from policies.causal.policy import CausalPolicy
from policies.causal.settings import CausalSettings
from policies.generation import Generation
from policies.rosa.config import RosaConfig
from policies.sampling import SamplingConfig
from tests.policies.causal.test_causal import SMALL, TEMPLATE, WORDS, task

VOCABULARY = [*WORDS, "<think>", "</think>"]
SWITCHED = TEMPLATE + "{% if enable_thinking is defined and not enable_thinking %}<think>\n</think>\n{% endif %}"  # as Qwen3's
BEGUN = TEMPLATE + "{% if add_generation_prompt %}<think>\n{% endif %}"  # as the distillations of R1


def engine_with(folder, template):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(Qwen3Config(**SMALL | {"vocab_size": len(VOCABULARY)}))
    model.get_input_embeddings().weight.data.mul_(30)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: n for n, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated")])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="[UNK]")
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return load_engine(str(folder), device="cpu")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return engine_with(tmp_path_factory.mktemp("qwen3"), BEGUN)


GREEDY = SamplingConfig(max_new_tokens=40)


def session_of(engine, sampling=GREEDY, adapt=None, **settings):
    settings = {"instruct": False, "thought_tokens": 6, "answer_tokens": 5, **settings}
    made = CausalPolicy("x", engine, CausalSettings(**settings), sampling).open(task(kind="word"), seed=0, adapt=adapt)
    made.begin("w1 w2")
    return made


def test_a_thought_over_its_budget_is_ended_and_the_answer_asked_for(engine):
    session = session_of(engine, adapt=RosaConfig(tokens="all"))
    decision = session.act({"text": ""})
    assert len(decision.token_ids) <= 6 + 4 + 5 and session._given == [(6, 10)]  # "\n</think>\n\n" is four tokens here
    assert VOCABULARY[decision.token_ids[7]] == "</think>" and "</think>" in decision.text
    assert decision.thought.endswith("</think>") and "</think>" not in decision.action_text
    assert decision.token_logprobs[6:10] == (0.0,) * 4  # nobody chose them
    [(hidden, tokens)] = session.captured()
    assert tuple(tokens.tolist()) == decision.token_ids
    score = engine.score(prompt_of(session), tokens)
    assert torch.allclose(score.hidden, hidden, atol=1e-3)  # what the head received is what a reply of these tokens gives it
    chosen = [n for n in range(len(tokens)) if not 6 <= n < 10]
    assert torch.allclose(score.logprobs[chosen], torch.tensor(decision.token_logprobs)[chosen], atol=1e-4)


def test_what_was_put_there_is_not_blamed(engine):
    session = session_of(engine, adapt=RosaConfig(tokens="all"))
    tokens = [3, 4, 5, 6, 7, 8, *session._end_tokens().tolist(), 9, WORDS.index("<|im_end|>")]
    session.relive([({"text": ""}, "w3 w4")], [tokens])
    assert session._given == [(6, 10)]
    update = session.adapt([-1.0])
    assert update is not None and update.accepted
    [reply] = update.replies
    assert len(reply.before) == len(tokens)  # in their order, one by one
    moved = [after - before for before, after in zip(reply.before, reply.after, strict=True)]
    chosen, given = sum(moved[:6]) + moved[10], sum(moved[6:10])
    assert chosen < -0.1 and abs(given) < 0.5 * abs(chosen)


def prompt_of(session):
    return session._prompt(session.messages("w1 w2")[:1])


def test_recorded_again_it_is_the_same(engine):
    session = session_of(engine, adapt=RosaConfig(tokens="all"))
    decision = session.act({"text": ""})
    again = session_of(engine, adapt=RosaConfig(tokens="all"))
    [logprob] = again.relive([({"text": ""}, decision.text)], [decision.token_ids])
    assert logprob == pytest.approx(decision.logprob, abs=1e-3) and again._given == session._given
    first, second = session.adapt([-1.0]), again.adapt([-1.0])
    for one, other in zip(first.replies, second.replies, strict=True):
        assert one.before == pytest.approx(other.before, abs=1e-3) and one.after == pytest.approx(other.after, abs=1e-2)


@pytest.mark.parametrize("next_best", [False, True])
@pytest.mark.parametrize(("limit", "given"), [(6, (0, 0)), (10, (0, 0)), (12, (6, 10)), (40, (6, 10))])
def test_a_smaller_limit_wins_over_the_budgets_and_what_was_put_there_is_known_again(engine, limit, given, next_best):
    session = session_of(engine, SamplingConfig(max_new_tokens=limit, next_best=next_best, beams=4), RosaConfig(tokens="all"))
    decision = session.act({"text": ""})
    assert len(decision.token_ids) <= min(limit, 6 + 4 + 5) and session._given == [given]
    assert isinstance(decision.actions[0], Invalid) or given[1]
    again = session_of(engine, session.sampling, RosaConfig(tokens="all"))
    again.resume([({"text": ""}, decision.text)], session.captured())
    assert again._given == [given]


def test_a_thought_that_was_ended_at_the_limit_is_known_again(engine):
    """As replies were written when the limit did not count the end."""
    session = session_of(engine, SamplingConfig(max_new_tokens=4), RosaConfig(tokens="all"))
    session.relive([({"text": ""}, "w3")], [[3, 4, 5, 6, *session._end_tokens().tolist(), 9]])
    assert session._given == [(4, 8)]


def generation(engine, text, finish):
    tokens = engine.tokens(text)[: None if finish == "stop" else -1]
    return Generation(text, tokens, None, torch.zeros(len(tokens)), finish, 3)


@pytest.mark.parametrize(
    ("replies", "limits", "answer"),
    [
        (["w1 w2 w3 w4 w5 w6|length", "w7|stop"], [6, 5], "w7"),  # the thought is ended
        (["w1\n</think> w2 w3|length", "w4|stop"], [6, 35], "w2 w3w4"),  # it had ended: the answer goes on, up to the whole limit
        (["w1\n</think> w2|stop"], [6], "w2"),
        (["w1 w2 w3 w4 w5 w6|length", "w7 w8 w9|length"], [6, 5], None),
        (["w1 w2|stop"], [6], None),  # the turn ended inside the thought: that is no answer
    ],
)
def test_budget_and_limit(engine, monkeypatch, replies, limits, answer):
    asked, left = [], iter(replies)

    def submit(request):
        asked.append(request)
        text, _, finish = next(left).partition("|")
        return generation(engine, text, finish)

    monkeypatch.setattr(engine, "submit", submit)
    decision = session_of(engine).act({"text": ""})
    assert [request.sampling.max_new_tokens for request in asked] == limits
    if answer is None:
        assert isinstance(decision.actions[0], Invalid)
    else:
        assert isinstance(decision.actions[0], Answer) and decision.action_text.split("</think>")[-1].strip() == answer
    if len(asked) == 2:
        assert asked[1].prompt.text.startswith(asked[0].prompt.text + replies[0].partition("|")[0])


def test_words_of_its_own_are_written_without_a_thought(tmp_path, engine, monkeypatch):
    asked = []

    def scripted(*texts):
        left = iter(texts)

        def submit(request):
            asked.append(request.prompt.text)
            return generation(engine, next(left), "stop")

        return submit

    switched = engine_with(tmp_path, SWITCHED)
    monkeypatch.setattr(switched, "submit", scripted("w3"))
    assert CausalPolicy("x", switched, CausalSettings(), SamplingConfig()).complete("w1") == "w3"
    assert asked[-1].endswith("<think>\n</think>\n") and switched.thinks and switched.thought_switch
    monkeypatch.setattr(engine, "submit", scripted("w1 w2", "w4"))
    assert CausalPolicy("x", engine, CausalSettings(), SamplingConfig()).complete("w1") == "w4"  # ended, and asked again
    assert asked[-1].endswith("w1 w2\n</think>\n\n")


def test_the_next_best_answer_comes_after_the_thought(engine):
    session = session_of(engine, SamplingConfig(max_new_tokens=20, next_best=True, beams=4))
    first = session.act({"text": ""})
    session.begin("w1 w2", attempt=2)
    second = session.act({"text": ""})
    assert isinstance(first.actions[0], Answer) and isinstance(second.actions[0], Answer)
    assert first.thought == second.thought and first.action_text and second.action_text
    assert first.action_text != second.action_text  # though the prompt begins the thought, what follows is no part of it
    assert first.thought.endswith("</think>") and first.passes.forward > len(first.token_ids)

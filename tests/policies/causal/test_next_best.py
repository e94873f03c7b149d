"""The most probable reply that was not tried: against the enumeration of all replies of a small model, and over attempts."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_causal import WORDS, save, task

import policies.engine
import policies.exclusion
from envs.errors import AdaptationError, PolicyError, UsageError
from policies.batching import Again
from policies.causal.load import load_engine
from policies.exclusion import Exclusion
from policies.generation import Generation, Request, Search
from policies.methods import NoneConfig
from policies.registry import load_policy
from policies.rosa.config import RosaConfig
from policies.sampling import SamplingConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def engine(folder):
    engine = load_engine(str(folder), device="cpu")
    engine.model.get_input_embeddings().weight.data.mul_(0.05)  # nearer to uniform: many replies are worth looking at
    return engine


@torch.no_grad()
def every_reply(engine, prompt, limit):
    """Log-probability of every reply of at most ``limit`` tokens that ends, by its tokens."""
    stop = next(iter(engine.stop_ids))
    others = [v for v in range(len(WORDS)) if v != stop]
    found = {}
    ids, total = engine._ids(prompt), {(): 0.0}
    for length in range(limit):
        x = torch.stack([torch.cat([ids, torch.tensor(t, dtype=torch.long)]) for t in total])
        logp = engine.model(x).logits[:, -1].log_softmax(-1).tolist()
        found |= {(*t, stop): before + row[stop] for (t, before), row in zip(total.items(), logp, strict=True)}
        if length < limit - 1:
            total = {(*t, v): before + row[v] for (t, before), row in zip(total.items(), logp, strict=True) for v in others}
    return found


def test_what_is_found_is_the_most_probable_reply_that_counts_among_all(engine):
    prompt = engine.chat([{"role": "user", "content": "w1 w2 w3"}])
    ranked = sorted((every := every_reply(engine, prompt, 3)), key=every.get, reverse=True)
    texts = {t: engine._decode(list(t), skip_special_tokens=True) for t in ranked}
    tried: set[str] = {""}
    for _ in range(12):
        reply = engine.search(Search(prompt, lambda text: text not in tried, beams=64, max_new_tokens=3, capture=True))
        assert tuple(reply.tokens.tolist()) == next(t for t in ranked if texts[t] not in tried)
        score = engine.score(prompt, reply.tokens)
        assert torch.allclose(score.hidden, reply.hidden, atol=1e-4) and torch.allclose(score.logprobs, reply.logprobs, atol=1e-4)
        tried.add(reply.text)
    assert reply.passes.prefill == 1


def test_a_narrow_beam_is_widened_until_it_holds_something_new(engine):
    prompt = engine.chat([{"role": "user", "content": "w1 w2 w3"}])
    ranked = sorted((every := every_reply(engine, prompt, 2)), key=every.get, reverse=True)
    tried = {engine._decode(list(t), skip_special_tokens=True) for t in ranked[:4]}
    narrow = Search(prompt, lambda text: text not in tried, beams=1, max_new_tokens=2)
    assert engine.search(narrow).text not in tried
    nothing = engine.search(Search(prompt, lambda text: False, beams=2, max_new_tokens=3))
    assert nothing.finish == "stop"  # the most probable one of all, when none counts
    assert nothing.passes.forward <= 1 + 8 * 3


def test_keys_and_values_of_different_sizes_are_searched_and_drawn_from_alone_and_in_company(tmp_path):
    engine = load_engine(str(save(tmp_path, "deepseek3")), device="cpu")
    prompts = [engine.chat([{"role": "user", "content": text}]) for text in ("w1 w2 w3", "w4 " * 20)]
    exclusion = Exclusion(lambda text: text.startswith("w1"), lambda text: True, lambda pieces: 0)
    asked = [Request(p, SamplingConfig(temperature=1.0, max_new_tokens=3), 5, capture=True, exclusion=exclusion) for p in prompts]
    together = engine.generate(asked)
    found = [engine.search(Search(p, exclusion.counts, beams=8, max_new_tokens=3, capture=True)) for p in prompts]
    for prompt, reply in zip([*prompts, *prompts], [*together, *found], strict=True):
        score = engine.score(prompt, reply.tokens)
        assert torch.allclose(score.logprobs, reply.logprobs, atol=1e-4) and torch.allclose(score.hidden, reply.hidden, atol=1e-3)
    assert [engine.generate([one])[0].tokens.tolist() for one in asked] == [reply.tokens.tolist() for reply in together]


def test_an_adapter_changes_what_is_found_and_sessions_share_nothing(engine):
    prompt = engine.chat([{"role": "user", "content": "w1 w2 w3"}])
    from policies.learner import HeadLearner

    learner = HeadLearner(RosaConfig(beta=0.2, tokens="all"), engine.head_weight, 0)
    free = engine.search(Search(prompt, bool, beams=8, max_new_tokens=4, capture=True))
    learner.record(free.hidden, free.tokens, 0)
    assert learner.update([-1.0]).accepted
    moved = engine.search(Search(prompt, bool, beams=8, max_new_tokens=4, adapter=learner.adapter))
    assert moved.text != free.text
    assert torch.allclose(engine.score(prompt, moved.tokens, learner.adapter).logprobs, moved.logprobs, atol=1e-4)
    assert engine.search(Search(prompt, bool, beams=8, max_new_tokens=4)).text == free.text


NEXT = SamplingConfig(max_new_tokens=4, next_best=True, first_greedy=True)


def attempts(policy, numbers, session=None):
    session = session or policy.open(task(kind="word"), seed=0)
    found = []
    for attempt in numbers:
        session.begin("w1 w2", attempt=attempt)
        found.append(session.act({"text": "w1 w2"}))
    return session, found


def test_a_session_never_gives_an_answer_twice_and_goes_on_alike_when_it_is_taken_up_again(folder):
    policy = load_policy(str(folder), sampling=NEXT, device="cpu", instruct=False)
    policy.engine.model.get_input_embeddings().weight.data.mul_(0.05)
    session, said = attempts(policy, range(1, 7))
    assert len({session._key(d.actions) for d in said[1:]}) == 5
    logprobs = [d.logprob for d in said[1:]]
    assert logprobs == sorted(logprobs, reverse=True)
    assert all(d.passes.prefill == 1 and d.passes.forward >= d.tokens for d in said)
    again = policy.open(task(kind="word"), seed=99)
    again.recall([({"text": "w1 w2"}, d.actions) for d in said[:3]])
    _, rest = attempts(policy, range(4, 7), again)
    assert [d.text for d in rest] == [d.text for d in said[3:]]


def test_models_and_endpoints_that_cannot_be_searched_say_so(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:1/v1")
    for name, options in (("openai:ui-tars-1.5-7b", {}), ("served:http://localhost:1", {}), (str(tmp_path), {"engine": "vllm"})):
        with pytest.raises(UsageError, match="cannot be asked of an endpoint"):
            load_policy(name, sampling=NEXT, **options)
    sliding = load_policy(str(save(tmp_path, "gemma3")), sampling=NEXT, device="cpu", instruct=False)
    with pytest.raises(PolicyError, match="tree"):
        attempts(sliding, range(1, 3))


def test_a_character_of_several_tokens_is_read_whole(engine, monkeypatch):
    monkeypatch.setattr(engine, "_decode", lambda tokens, **_: "é" if len(tokens) == 2 else "\ufffd")
    assert engine.said(torch.tensor([1, 2])) == "é" and engine.pieces(torch.tensor([1, 2])) == ["\ufffd", "\ufffd"]


def test_normal_forms_do_not_know_the_right_answer_and_are_the_graders(folder):
    from envs.answer_forms import normal_form
    from envs.reasoning.graders import grade
    from envs.reasoning.items import Item

    cases = {
        "number": (("42", "The answer is 42.", "42.0", r"\boxed{42}"), ("41", "42 or 43")),
        "bool": (("Yes.", "The answer is yes", "true"), ("no", "yes or no")),
        "choice": (("B", "(B)", "The answer is B. red"), ("A", "red or blue")),
        "list": (("a, b, c", "[a, b, c]", "The list is a, b, c"), ("a, c, b",)),
        "word": (("cat", "The answer is cat.", '"Cat"'), ("dog",)),
    }
    for kind, (same, other) in cases.items():
        forms = {normal_form(kind, reply, ("green", "red")) for reply in same}
        assert len(forms) == 1 and None not in forms
        assert all(normal_form(kind, reply, ("green", "red")) not in forms for reply in other)
        item = Item(question="?", answer=same[0], kind=kind, choices=("green", "red") if kind == "choice" else ())
        verdicts = {grade(item, reply).score for reply in same}
        assert verdicts == {1.0} and all(grade(item, reply).score == 0.0 for reply in other)
    for a, b in itertools.combinations(("7", "seven", "7.0"), 2):
        assert normal_form("", a) == normal_form("", b)


def exclusive(policy, seed=0):
    session = policy.open(task(kind="word"), seed=seed)
    return attempts(policy, range(1, 5), session)[1]


def test_no_repeat_reads_the_prompt_once_a_step_however_much_was_tried(folder):
    sampling = SamplingConfig(temperature=0.7, max_new_tokens=6, no_repeat=True)
    policy = load_policy(str(folder), sampling=sampling, device="cpu", instruct=False)
    policy.engine.model.get_input_embeddings().weight.data.mul_(0.1)
    said = exclusive(policy)
    assert len({d.text for d in said}) == 4 and sum(d.redrawn for d in said) > 0
    assert all(d.passes.prefill == 1 and d.tokens >= len(d.token_ids) for d in said)
    assert [d.text for d in exclusive(policy)] == [d.text for d in said]
    assert [d.text for d in exclusive(policy, seed=1)] != [d.text for d in said]
    again = policy.open(task(kind="word"), seed=0)
    again.recall([({"text": "w1 w2"}, d.actions) for d in said[:2]])
    assert [d.text for d in attempts(policy, range(3, 5), again)[1]] == [d.text for d in said[2:]]


def test_an_excluded_reply_has_the_hidden_states_and_probabilities_of_its_adapter_alone_or_in_a_batch(engine, monkeypatch):
    from policies.exclusion import Exclusion
    from policies.generation import Request
    from policies.learner import HeadLearner

    prompts = [engine.chat([{"role": "user", "content": text}]) for text in ("w1 w2 w3", "w9 " * 20)]
    first = engine.generate([Request(p, SamplingConfig(max_new_tokens=4), capture=True) for p in prompts])
    learner = HeadLearner(RosaConfig(beta=1.0, tokens="all"), engine.head_weight, 0)
    learner.record(first[0].hidden, first[0].tokens, 0)
    learner.update([-1.0])
    taken = {reply.text for reply in first}
    exclusion = Exclusion(lambda text: text not in taken and text[-1:] in "02468", bool, lambda pieces: 0)
    sampling = SamplingConfig(temperature=0.9, max_new_tokens=4)
    adapters = (learner.adapter, None)  # one session has learned, the other has not
    asked = [Request(p, sampling, 5 + i, adapters[i], True, exclusion) for i, p in enumerate(prompts)]
    packed: list[int] = []
    forest = engine._forest
    monkeypatch.setattr(engine, "_forest", lambda trees, caches, **how: packed.append(len(trees)) or forest(trees, caches, **how))
    together = engine.generate(asked)
    assert packed == [2]
    monkeypatch.setattr(engine, "_worth_packing", 1)  # of a model whose attention to both costs more than it spares
    assert [r.tokens.tolist() for r in engine.generate(asked)] == [r.tokens.tolist() for r in together] and packed == [2, 1, 1]
    for i, reply in enumerate(together):
        alone = engine.generate([asked[i]])[0]
        assert alone.tokens.tolist() == reply.tokens.tolist() and exclusion.counts(reply.text)
        score = engine.score(prompts[i], reply.tokens, adapters[i])
        assert torch.allclose(score.logprobs, reply.logprobs, atol=1e-4) and torch.allclose(score.hidden, reply.hidden, atol=1e-4)
    assert sum(reply.redrawn for reply in together) > 0


def test_replies_that_take_many_draws_are_put_aside_and_nobody_waits_for_them(engine, monkeypatch):
    """One session asks for what hardly ever comes; the others are answered meanwhile, and it gets what it would have got alone."""
    from policies.exclusion import Exclusion
    from policies.generation import Request

    monkeypatch.setattr(policies.engine, "PASSES", 2)
    prompts = [engine.chat([{"role": "user", "content": text}]) for text in ("w1 w2 w3", "w9 " * 20, "w4 w5")]
    rare = Exclusion(lambda text: text.startswith("w30"), bool, lambda pieces: 0)
    often = Exclusion(lambda text: text[-1:] in "02468", bool, lambda pieces: 0)
    hot = SamplingConfig(temperature=1.0, max_new_tokens=4)
    asked = [Request(p, hot, n, None, True, rare if n == 0 else often) for n, p in enumerate(prompts)]
    alone = [engine.generate([one])[0] for one in asked]
    assert alone[0].redrawn > 5
    order: list[int] = []

    def ask(n):
        engine.enter(n)
        replies = [engine.submit(asked[n]) for _ in range(1 if n == 0 else 3)]
        order.append(n)
        engine.leave(n)
        return replies

    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(ask, range(3)))
    assert order[-1] == 0
    for one, replies in zip(alone, said, strict=True):
        for reply in replies:
            assert (reply.text, reply.redrawn, reply.drawn_tokens) == (one.text, one.redrawn, one.drawn_tokens)
            assert torch.allclose(reply.hidden, one.hidden, atol=1e-4) and torch.allclose(reply.logprobs, one.logprobs, atol=1e-4)
            assert reply.passes == one.passes


@pytest.mark.parametrize("room", [0.0, 1.0])
def test_replies_that_are_put_aside_take_so_much_memory_at_most(engine, monkeypatch, room):
    """The largest are drawn to their end at once; what they get does not depend on it."""
    from policies.exclusion import Exclusion
    from policies.generation import Request

    monkeypatch.setattr(policies.engine, "PASSES", 1)
    prompts = [engine.chat([{"role": "user", "content": text}]) for text in ("w1 w2 w3", "w9 " * 20, "w4 w5")]
    rare = Exclusion(lambda text: text.startswith("w30"), bool, lambda pieces: 0)
    asked = [Request(p, SamplingConfig(temperature=1.0, max_new_tokens=4), n, None, True, rare) for n, p in enumerate(prompts)]
    alone = [engine.generate([one])[0] for one in asked]
    one_node = 4 * engine.head_weight.shape[0] / 2**20
    limit = room * 2.5 * 3 * one_node  # a few nodes of each
    monkeypatch.setattr(engine, "_parked_mb", limit)
    waiting, rounds = list(asked), 0
    while any(not isinstance(one, Generation) for one in waiting):
        left = [n for n, one in enumerate(waiting) if not isinstance(one, Generation)]
        for n, answer in zip(left, engine._answer([waiting[n] for n in left]), strict=True):
            waiting[n] = answer.question if isinstance(answer, Again) else answer
        parked = [one.excluding for one in waiting if not isinstance(one, Generation)]
        assert sum(one.held_mb for one in parked) <= limit
        kept = [{node.logits.untyped_storage() for node in one._nodes.values()} for one in parked]
        sizes = [sum({memory.data_ptr(): memory.nbytes() for memory in some}.values()) / 2**20 for some in kept]
        assert sizes == pytest.approx([one.held_mb for one in parked])  # not what others got of the same calls
        rounds += 1
    assert (rounds == 1) == (room == 0.0)
    for one, reply in zip(alone, waiting, strict=True):
        assert (reply.text, reply.redrawn) == (one.text, one.redrawn) and torch.allclose(reply.hidden, one.hidden, atol=1e-4)


def test_whether_replies_can_be_excluded_does_not_depend_on_what_another_session_does_meanwhile(engine, monkeypatch):
    """A session that asked while the tree of another grew took the other way of drawing again, so that workers changed results."""
    known, asked = engine.has_trees, []
    call = engine.model.forward

    def watched(*args, **kwargs):
        asked.append(engine.has_trees)
        return call(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", watched)
    engine.search(Search(engine.chat([{"role": "user", "content": "w1 w2 w3"}]), bool, beams=2, max_new_tokens=3))
    assert known and len(asked) > 1 and all(asked)


def test_what_does_not_fit_into_memory_together_is_drawn_again_one_by_one(engine, monkeypatch):
    from policies.exclusion import Exclusion
    from policies.generation import Request

    often = Exclusion(lambda text: text[-1:] in "02468", bool, lambda pieces: 0)
    hot = SamplingConfig(temperature=1.0, max_new_tokens=4)
    prompts = [engine.chat([{"role": "user", "content": text}]) for text in ("w1 w2 w3", "w9 " * 20, "w4 w5")]
    asked = [Request(p, hot, 20 + n, None, True, often) for n, p in enumerate(prompts)]
    fine = engine.generate(asked)
    forest = engine._forest

    def small(trees, caches, **how):
        if len(trees) > 1:
            raise torch.OutOfMemoryError("no room")
        return forest(trees, caches, **how)

    monkeypatch.setattr(engine, "_forest", small)
    assert [r.text for r in engine.generate(asked)] == [r.text for r in fine]


def test_the_weights_learn_what_the_model_says_under_the_guidance(folder):
    policy = load_policy(str(folder), sampling=SamplingConfig(max_new_tokens=6), device="cpu", instruct=False)
    policy.engine.model.get_input_embeddings().weight.data.mul_(0.1)
    config = RosaConfig(target="guided", tokens="all", beta=1.0, damping=1e-6)
    session = policy.open(task(), seed=0, adapt=config)
    session.begin("w1 w2")
    decision = session.act({"text": "w1 w2"})
    update = session.adapt([-1.0], guidance="w9 w8 w7")
    assert update.accepted and (update.passes.forward, update.passes.prefill) == (1, 1)
    free = policy.open(task(), seed=0, adapt=NoneConfig())
    free.begin("w1 w2", guidance="w9 w8 w7", attempt=2)
    (guided,) = free.relive([({"text": "w1 w2"}, decision.text)], [decision.token_ids])
    session.begin("w1 w2", attempt=2)
    (after,) = session.relive([({"text": "w1 w2"}, decision.text)], [decision.token_ids])
    assert abs(after - guided) < 0.5 * abs(decision.logprob - guided)  # without it, near to what it says with it
    session.begin("w1 w2", attempt=3)
    session.act({"text": "w1 w2"})
    with pytest.raises(AdaptationError, match="no guidance"):
        session.adapt([-1.0], guidance="")


def test_a_whole_reply_is_a_target_of_a_text_policy_and_its_end_is_protected(folder):
    policy = load_policy(str(folder), sampling=SamplingConfig(max_new_tokens=6), device="cpu", instruct=False)
    policy.engine.model.get_input_embeddings().weight.data.mul_(0.1)
    session = policy.open(task(), seed=0, adapt=RosaConfig(target="reply", tokens="all", beta=1.0))
    session.begin("w1 w2")
    session.act({"text": "w1 w2"})
    update = session.adapt([-1.0])
    assert update.accepted and update.numbers["moved_tokens"] > 0


def test_what_hardly_ever_comes_is_given_up_before_its_tree_fills_the_memory(engine, monkeypatch):
    from policies.exclusion import Exclusion
    from policies.generation import Request

    prompt = engine.chat([{"role": "user", "content": "w1 w2 w3"}])
    never = Exclusion(lambda text: False, bool, lambda pieces: 0)
    asked = Request(prompt, SamplingConfig(temperature=1.0, max_new_tokens=4), 0, None, False, never)
    assert engine.generate([asked])[0].redrawn == policies.exclusion.MAX_DRAWS
    monkeypatch.setattr(policies.exclusion, "MAX_NODES", 20)
    few = engine.generate([asked])[0]
    assert 1 < few.redrawn < 20

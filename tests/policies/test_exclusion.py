"""Drawing as if what was tried did not exist: the distribution against enumeration, on a policy that is a table."""

from __future__ import annotations

import itertools
import math
from functools import cache

import pytest
import torch
from scipy.stats import chisquare

from policies.exclusion import Excluding, Exclusion, redraw
from policies.head import HeadTap
from policies.sampling import SamplingConfig
from policies.tree import Errand, Forest, Root, TokenTree

V, STOP, LIMIT = 5, 4, 4
THOUGHTS = (0, 1, 2, 3)
"""A reply is a thought, one letter, then an action of one or two letters, then its end."""


@cache
def row(path: tuple[int, ...]) -> torch.Tensor:
    """Logits after a path: any table will do."""
    generator = torch.Generator().manual_seed(17 + sum((t + 1) * 7**i for i, t in enumerate(path)))
    return torch.randn(V, generator=generator) * 1.5


def forest(*prompts: int) -> tuple[Forest, list[int]]:
    """Trees below prompts of these lengths, and the sizes of the calls that were made."""
    ids: list[int] = []
    sizes: list[int] = []

    def call(new, positions, mask):
        ids.extend(new[0].tolist())
        sizes.append(new.shape[1])
        assert mask.shape == (1, 1, new.shape[1], sum(prompts) + len(ids))
        out = []
        for i in range(new.shape[1]):
            seen = (mask[0, 0, i] == 0).nonzero()[:, 0].tolist()
            start = min(seen)
            length = prompts[[sum(prompts[:n]) for n in range(len(prompts))].index(start)]
            assert seen[:length] == list(range(start, start + length))  # its own prompt, and nobody else's
            path = tuple(ids[j - sum(prompts)] for j in seen[length:])
            assert positions[0, i] == length - 1 + len(path)  # the tree's mask and positions agree
            out.append(row(path))
        return torch.stack(out)[None]

    return Forest(call, HeadTap([]), [TokenTree(Root(row(()), n, n)) for n in prompts], torch.float32), sizes


def tree() -> TokenTree:
    return forest(2)[0].trees[0]


def text(tokens) -> str:
    return "".join(map(str, tokens)).removesuffix(str(STOP))


def every_reply(temperature: float = 1.0) -> dict[str, float]:
    """Probability of every reply of at most LIMIT tokens, those that have not ended too."""
    found, open_ = {}, {(): 1.0}
    for length in range(1, LIMIT + 1):
        longer = {}
        for path, before in open_.items():
            for token, p in enumerate((row(path) / temperature).softmax(-1).tolist()):
                if token == STOP:
                    found[text([*path, STOP])] = before * p
                else:
                    longer[*path, token] = before * p
        open_ = longer
        if length == LIMIT:
            found |= {text(path) + "…": p for path, p in open_.items()}
    return found


TRIED = ("2", "3", "20", "23", "33", "0", "1", "12", "32", "02", "00")


def counts(reply: str) -> bool:
    return parse(reply) and reply[1:] not in TRIED


def parse(reply: str) -> bool:
    return len(reply) > 1 and int(reply[0]) in THOUGHTS


def spelled(action: str) -> tuple[int, ...]:
    return (*map(int, action), STOP)


def again_of(excluding: Excluding, exclusion: Exclusion, first):
    """What is done to draw again after ``first``."""
    return redraw(excluding, exclusion, first, limit=LIMIT, decode=text, pieces=lambda tokens: [str(t) for t in tokens])


def one(seed: int, *, temperature: float = 1.0, spellings=tuple(map(spelled, TRIED[:6]))):  # noqa: B008 - a constant
    """A reply as the engine makes it: drawn, and if it does not count, drawn again.  Returns it, and what it took."""
    sampling = SamplingConfig(temperature=temperature)
    below = tree()
    first = below.alone(Excluding(below, sampling, frozenset({STOP}), torch.Generator().manual_seed(2 * seed)).draw(LIMIT))
    if first.ended and counts(text(first.tokens)):
        return text(first.tokens), 0, 0
    below = tree()
    again = Excluding(below, sampling, frozenset({STOP}), torch.Generator().manual_seed(2 * seed + 1))
    found = below.alone(again_of(again, Exclusion(counts, parse, lambda pieces: 1, spellings), first.tokens))
    assert found.drawn.tokens == below.path(found.drawn.node) + found.drawn.tokens[-1:]
    return found.text, found.others, below.passes


@pytest.mark.parametrize("negligible", [1e-4, 1.0], ids=["remembered", "forgotten"])
def test_replies_are_distributed_as_the_policy_conditioned_on_what_was_not_tried(monkeypatch, negligible):
    monkeypatch.setattr("policies.exclusion.NEGLIGIBLE", negligible)  # 1: whatever is no action is forgotten, and may come again
    for most in ("MAX_DRAWS", "MAX_NODES"):  # what is forgotten is computed anew
        monkeypatch.setattr(f"policies.exclusion.{most}", 10_000)
    temperature = 0.8
    every = every_reply(temperature)
    left = {reply: p for reply, p in every.items() if "…" not in reply and counts(reply)}
    assert 0.5 < 1 - sum(left.values()) < 0.99  # most of the mass was tried
    n, drawn = 120, {}
    for seed in range(n):
        reply = one(seed, temperature=temperature)[0]
        drawn[reply] = drawn.get(reply, 0) + 1
    assert set(drawn) <= set(left)
    wanted = {reply: n * p / sum(left.values()) for reply, p in left.items()}
    common = [reply for reply, m in wanted.items() if m >= 4]
    rest = n - sum(wanted[r] for r in common)
    seen = [drawn.get(r, 0) for r in common] + [n - sum(drawn.get(r, 0) for r in common)]
    assert len(common) >= 3
    assert chisquare(seen, [*(wanted[r] for r in common), rest]).pvalue > 0.01


def test_what_is_kept_is_the_mass_that_was_not_excluded():
    every = every_reply()
    sampling = SamplingConfig(temperature=1.0)
    below = tree()
    excluding = Excluding(below, sampling, frozenset({STOP}), torch.Generator())
    gone = ["02", "0", "023", "12"]
    below.alone(excluding.exclude([[*map(int, reply), STOP] for reply in gone]))
    assert excluding.kept == pytest.approx(1 - sum(every[reply] for reply in gone), abs=1e-6)
    below.alone(excluding.exclude([[*map(int, reply), STOP] for reply in every if "…" not in reply]))
    below.alone(excluding.exclude([[*map(int, reply[:-1])] for reply in every if "…" in reply]))
    assert excluding.kept < 1e-9  # nothing is left, and no negative mass either


def test_greedy_takes_the_most_probable_token_of_the_conditional_policy():
    every = every_reply()
    gone = sorted((r for r in every if "…" not in r), key=every.get, reverse=True)[:6]
    below = tree()
    excluding = Excluding(below, SamplingConfig(), frozenset({STOP}), torch.Generator())
    below.alone(excluding.exclude([[*map(int, reply), STOP] for reply in gone]))
    left = {reply: p for reply, p in every.items() if reply not in gone}
    reply = ""
    while True:
        mass = {c: sum(p for r, p in left.items() if r.startswith(reply + c)) for c in "0123"}
        mass[""] = left.get(reply, 0.0)
        best = max(mass, key=mass.get)
        if best == "" or len(reply) == LIMIT - 1:
            break
        reply += best
    assert text(below.alone(excluding.draw(LIMIT)).tokens) == reply
    assert text(below.alone(excluding.draw(LIMIT)).tokens) == reply  # no randomness


def test_knowing_how_the_tried_actions_are_spelled_saves_draws_and_nothing_is_drawn_without_end():
    with_, without = ([one(seed, spellings=s)[1] for seed in range(12)] for s in (tuple(map(spelled, TRIED)), ()))
    assert sum(with_) < sum(without)
    nothing = Exclusion(lambda reply: False, parse, lambda pieces: 1)
    below = tree()
    again = Excluding(below, SamplingConfig(temperature=1.0), frozenset({STOP}), torch.Generator().manual_seed(1))
    found = below.alone(again_of(again, nothing, [0, 2, STOP]))
    assert parse(found.text) and found.others <= 64
    assert math.isfinite(sum(found.drawn.logprobs))


@pytest.mark.parametrize("is_action", [False, True])
def test_improbable_replies_that_do_not_count_leave_nothing_behind(monkeypatch, is_action):
    never = Exclusion(lambda reply: False, lambda reply: is_action, lambda pieces: 1)
    kept = []
    for negligible in (0.0, 1.0):
        monkeypatch.setattr("policies.exclusion.NEGLIGIBLE", negligible)
        below = tree()
        again = Excluding(below, SamplingConfig(temperature=1.0), frozenset({STOP}), torch.Generator().manual_seed(1))
        found = below.alone(again_of(again, never, [0, 2, STOP]))
        assert found.others <= 64 and (found.text == "02" or is_action)
        assert len(found.drawn.logprobs) == len(found.drawn.tokens)  # of one that was forgotten too
        kept.append(len(again._nodes))
    assert kept[1] == 3 < kept[0]  # the prompt's end and the first reply's two tokens


def test_a_nucleus_and_a_penalty_shape_what_is_drawn_from():
    sampling = SamplingConfig(temperature=0.8, top_p=0.7, frequency_penalty=1.0)
    below = tree()
    excluding = Excluding(below, sampling, frozenset({STOP}), torch.Generator().manual_seed(3))
    seen = {below.alone(excluding.draw(LIMIT)).tokens[0] for _ in range(60)}
    p, order = (row(()) / 0.8).softmax(-1).sort(descending=True)
    inside = {int(t) for t, before in zip(order, itertools.accumulate(p.tolist(), initial=0.0), strict=False) if before < 0.7}
    assert seen == inside


def test_replies_to_several_prompts_are_drawn_again_in_the_same_calls_as_if_each_were_alone():
    exclusion = Exclusion(counts, parse, lambda pieces: 1, tuple(map(spelled, TRIED)))
    firsts = [[0, 2, STOP], [1, 3, STOP], [3, 0, STOP], [2, 0, 2, STOP]]

    def work(below: TokenTree, n: int):
        excluding = Excluding(below, SamplingConfig(temperature=1.0), frozenset({STOP}), torch.Generator().manual_seed(n))
        return again_of(excluding, exclusion, firsts[n])

    alone, calls = [], 0
    for n, length in enumerate((3, 1, 5, 2)):
        one_of, sizes = forest(length)
        alone.append(one_of.trees[0].alone(work(one_of.trees[0], n)))
        calls += len(sizes)
    together, sizes = forest(3, 1, 5, 2)
    errands = [Errand(below, work(below, n)) for n, below in enumerate(together.trees)]
    together.go(errands)
    found = [errand.result for errand in errands]
    assert [(f.text, f.others, f.tokens) for f in found] == [(f.text, f.others, f.tokens) for f in alone]
    assert len(sizes) < calls and sum(sizes) == sum(below.passes for below in together.trees)
    assert all(counts(f.text) for f in found)

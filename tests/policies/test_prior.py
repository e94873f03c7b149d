"""θ₁ out of stored tokens: it does what its equations say, is bounded, and is refused where it would harm."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import logsigmoid

from policies.adapters.hidden import HiddenShift
from policies.adapters.lora import LoRAHead
from policies.head_pass import HeadPass
from policies.learner import HeadLearner
from policies.prior.config import PriorConfig
from policies.prior.step import Rows, digest_of, kept, theta_one
from policies.rosa.config import RosaConfig

V, d = 50, 24


def world(seed: int = 0):
    """W, and rows of a family whose states lie near each other: token 7 was right, token 3 (which is likelier) was wrong."""
    g = torch.Generator().manual_seed(seed)
    W = torch.randn(V, d, generator=g) / 3
    shared, family = torch.randn(d, generator=g), torch.randn(d, generator=g)
    states = 2 * shared + family + 0.2 * torch.randn(40, d, generator=g)
    return W, states, shared, g


def rows(states, token, reward):
    n = len(states)
    return Rows(
        states,
        torch.full((n,), token),
        torch.full((n,), reward, dtype=torch.float64),
        torch.arange(n),
        torch.zeros(n, dtype=torch.bool),
    )


CONFIG = PriorConfig(damping=0.1, max_kl=50.0, evidence=0.0)


def each(states, token, reward):
    """One session per token."""
    return [rows(state[None], token, reward) for state in states]


def margin(W, states, token, theta):
    return HeadPass(W, states, torch.full((len(states),), token)).moments(theta).margin


def test_what_was_right_is_likelier_in_like_places_and_what_was_wrong_less():
    W, states, *_ = world()
    made = [Rows.joined([rows(a[None], 3, -1.0), rows(b[None], 7, 1.0)]) for a, b in zip(states[:10], states[10:20], strict=True)]
    theta, numbers = theta_one(W, made, CONFIG)
    assert theta is not None and numbers["gain"] > 0 and numbers["sessions"] == 10
    fresh = states[30:]
    assert bool((margin(W, fresh, 7, theta) > margin(W, fresh, 7, None)).all())
    assert bool((margin(W, fresh, 3, theta) < margin(W, fresh, 3, None)).all())
    again, _ = theta_one(W, made, CONFIG)
    assert digest_of(theta) == digest_of(again) != ""


def test_centred_it_leaves_what_only_shares_the_common_direction():
    W, states, shared, g = world()
    elsewhere = 2 * shared + 0.2 * torch.randn(20, d, generator=g)  # another family
    moved = {}
    for centred in (True, False):
        config = CONFIG.model_copy(update={"centred": centred})
        theta, _ = theta_one(W, each(states[:20], 7, 1.0), config, shared)
        assert theta is not None and bool((margin(W, states[30:], 7, theta) > margin(W, states[30:], 7, None)).all())
        moved[centred] = float((margin(W, elsewhere, 7, theta) - margin(W, elsewhere, 7, None)).abs().mean())
    assert moved[True] < 0.5 * moved[False]


def test_what_a_session_says_of_the_others_is_what_a_step_without_it_does():
    """The size is chosen by predictions for sessions left out, here made one by one, of steps so small that they are linear."""
    W, states, _, g = world()
    W = W.double()
    tokens = torch.randint(0, 5, (18,), generator=g)
    parts = [rows(states[3 * n : 3 * n + 3].double(), 0, 1.0 if n % 3 else -1.0) for n in range(6)]
    parts = [replace(part, tokens=tokens[3 * n : 3 * n + 3]) for n, part in enumerate(parts)]
    whole = Rows.joined(parts)
    config = CONFIG.model_copy(update={"beta": 1e5, "largest": 1.0, "max_halvings": 0})
    head = HeadPass(W, whole.hidden, whole.tokens)
    zero = LoRAHead(torch.eye(d, dtype=torch.float64), head.H.new_zeros(V, 0), 1.0)
    before = head.moments(None, gram=True)
    whole_K = zero.kernel(head, before, torch.arange(18), ("B",))
    lam = config.damping * float(whole_K.diagonal().mean())
    x, gain = whole.rewards / config.beta, 0.0
    for n in range(6):
        rest, out = torch.tensor([i for i in range(18) if i // 3 != n]), torch.arange(3 * n, 3 * n + 3)
        c = torch.linalg.solve(whole_K[rest][:, rest] + lam * torch.eye(15, dtype=torch.float64), x[rest])
        step = torch.zeros(18, dtype=torch.float64).index_copy(0, rest, c)
        theta = zero.moved(zero.pull(head, before, step, ("B",)))
        after = head.compare(None, theta, before)[0]
        if n % 3:
            gain += float((logsigmoid(after) - logsigmoid(before.margin))[out].sum())
    theta, numbers = theta_one(W, parts, config)
    assert numbers["gain"] == pytest.approx(gain, rel=1e-3) and gain != 0
    assert (theta is None) == (gain < 0)


def test_it_goes_as_far_as_the_others_bear_out_and_not_at_all_where_they_contradict():
    W, states, *_ = world()
    far, more = theta_one(W, each(states[:20], 7, 1.0), CONFIG)
    assert far is not None and more["size"] == CONFIG.largest  # all of them agree
    mixed = each(states[:14], 7, 1.0) + each(states[14:20], 3, 1.0)
    assert 0 < theta_one(W, mixed, CONFIG)[1]["gain"] < more["gain"]
    theta, numbers = theta_one(W, each(states[:3], 7, 1.0) + each(states[3:20], 7, -1.0), CONFIG)  # it was mostly wrong
    assert theta is None and "likelier" in numbers["reason"]
    enough = more["gain"] - 0.01
    assert theta_one(W, each(states[:20], 7, 1.0), CONFIG.model_copy(update={"evidence": enough}))[0] is not None
    assert theta_one(W, each(states[:20], 7, 1.0), CONFIG.model_copy(update={"evidence": enough + 0.02}))[0] is None


def test_it_is_bounded_and_damped():
    W, states, *_ = world()
    made = each(states[:20], 7, 1.0)
    free, wide = theta_one(W, made, CONFIG)
    bound = wide["kl_mean"] / 3
    tight, less = theta_one(W, made, CONFIG.model_copy(update={"max_kl": bound}))
    assert free is not None and tight is not None and less["kl_mean"] <= bound and less["size"] < wide["size"]
    held, small = theta_one(W, made, CONFIG.model_copy(update={"damping": 30.0}))
    assert held is not None and small["norm2"] < 0.25 * wide["norm2"]


def test_the_nearest_sessions_count_where_not_all_of_them_fit():
    W, states, *_ = world()
    made = each(states[:20], 7, 1.0)
    few, numbers = theta_one(W, made + each(states[20:30], 3, 1.0), CONFIG.model_copy(update={"max_tokens": 20}))
    assert numbers["T"] == numbers["sessions"] == 20 and digest_of(few) == digest_of(theta_one(W, made, CONFIG)[0])


def test_the_end_of_a_failed_reply_is_not_unlearned():
    W, states, *_ = world()
    failed = [replace(one, ends=torch.ones(1, dtype=torch.bool)) for one in each(states[:10], 3, -1.0)]
    theta, _ = theta_one(W, failed + each(states[10:20], 7, 1.0), CONFIG)
    other, _ = theta_one(W, each(states[:10], 3, -1.0) + each(states[10:20], 7, 1.0), CONFIG)
    moved = [(margin(W, states[:10], 3, one) - margin(W, states[:10], 3, None)).mean() for one in (theta, other)]
    assert moved[0] > moved[1]


def test_too_little_gives_none():
    W, states, *_ = world()
    assert theta_one(W, each(states[:1], 7, 1.0), CONFIG)[0] is None
    assert theta_one(W, each(states[:5], 3, -1.0), CONFIG)[0] is None
    assert theta_one(W, [rows(states[:5], 7, 1.0)], CONFIG)[0] is None


def test_only_undecided_tokens_are_kept_and_the_end_is_marked():
    W, states, *_ = world()
    y = torch.tensor([7, 3, 5])
    W[5] = states[2] * 10
    found = kept(W, [(states[:3], y)], 1.0, frozenset({3}))
    assert found is not None and found.tokens.tolist() == [7, 3] and found.ends.tolist() == [False, False]
    found = kept(W, [(states[:2], y[:2])], -1.0, frozenset({3}))
    assert found.ends.tolist() == [False, True] and found.rewards.tolist() == [-1.0, -1.0]
    assert kept(W, [(states[2:3], y[2:])], 1.0, frozenset()) is None


def test_a_learner_starts_from_it_and_goes_on_unless_it_was_resumed(tmp_path):
    W, states, *_ = world()
    theta, _ = theta_one(W, each(states[:20], 7, 1.0), CONFIG)
    learner = HeadLearner(RosaConfig(), W, seed=0)
    learner.start(theta)
    assert learner.adapter is theta
    learner.record(states[:4], torch.tensor([3, 9, 3, 9]), 0)
    assert learner.update([-1.0]).accepted and learner.adapter is not theta
    learner.save(tmp_path)
    resumed = HeadLearner(RosaConfig(), W, seed=0)
    resumed.load(tmp_path)
    after = resumed.adapter
    resumed.start(theta)
    assert resumed.adapter is after and isinstance(after, LoRAHead)
    from envs.errors import UsageError

    with pytest.raises(UsageError, match="cannot start from"):
        HeadLearner(RosaConfig(mode="hidden"), W, seed=0).start(theta)
    assert HiddenShift is not LoRAHead

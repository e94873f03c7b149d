"""θ₁ out of stored tokens: it does what its equations say, is bounded, and is refused where it would harm."""

import pytest
import torch

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


CONFIG = PriorConfig(damping=0.1, max_kl=50.0)


def margin(W, states, token, theta):
    return HeadPass(W, states, torch.full((len(states),), token)).moments(theta).margin


def test_what_was_right_is_likelier_in_like_places_and_what_was_wrong_less():
    W, states, *_ = world()
    made = Rows.joined([rows(states[:10], 7, 1.0), rows(states[10:20], 3, -1.0)])
    theta, numbers = theta_one(W, made, rows(states[20:30], 7, 1.0), CONFIG)
    assert theta is not None and numbers["check_gain"] > 0 and numbers["halvings"] == 0
    fresh = states[30:]
    assert bool((margin(W, fresh, 7, theta) > margin(W, fresh, 7, None)).all())
    assert bool((margin(W, fresh, 3, theta) < margin(W, fresh, 3, None)).all())
    again, _ = theta_one(W, made, rows(states[20:30], 7, 1.0), CONFIG)
    assert digest_of(theta) == digest_of(again) != ""


def test_centred_it_leaves_what_only_shares_the_common_direction():
    W, states, shared, g = world()
    made = rows(states[:20], 7, 1.0)
    elsewhere = 2 * shared + 0.2 * torch.randn(20, d, generator=g)  # another family
    moved = {}
    for centred in (True, False):
        config = CONFIG.model_copy(update={"centred": centred})
        theta, _ = theta_one(W, made, rows(states[20:30], 7, 1.0), config, shared)
        assert theta is not None and bool((margin(W, states[30:], 7, theta) > margin(W, states[30:], 7, None)).all())
        moved[centred] = float((margin(W, elsewhere, 7, theta) - margin(W, elsewhere, 7, None)).abs().mean())
    assert moved[True] < 0.5 * moved[False]


def test_an_update_that_harms_earlier_answers_is_refused_and_a_large_one_halved():
    W, states, *_ = world()
    made = rows(states[:20], 7, 1.0)
    theta, numbers = theta_one(W, made, rows(states[20:30], 3, 1.0), CONFIG)  # here another answer was right
    assert theta is None and "less likely" in numbers["reason"] and numbers["halvings"] == CONFIG.max_halvings
    free, wide = theta_one(W, made, rows(states[20:30], 7, 1.0), CONFIG.model_copy(update={"beta": 0.1, "max_halvings": 8}))
    bound = wide["kl_mean"] / 3
    tight, less = theta_one(
        W, made, rows(states[20:30], 7, 1.0), CONFIG.model_copy(update={"beta": 0.1, "max_kl": bound, "max_halvings": 8})
    )
    assert free is not None and tight is not None and less["kl_mean"] <= bound and less["halvings"] > 0
    held, small = theta_one(W, made, rows(states[20:30], 7, 1.0), CONFIG.model_copy(update={"damping": 30.0}))
    assert held is not None and small["norm2"] < 0.1 * wide["norm2"]


def test_too_little_gives_none():
    W, states, *_ = world()
    none = rows(states[:0], 7, 1.0)
    assert theta_one(W, rows(states[:5], 7, 1.0), none, CONFIG)[0] is None
    assert theta_one(W, rows(states[:5], 3, -1.0), rows(states[5:9], 7, 1.0), CONFIG)[0] is None


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
    theta, _ = theta_one(W, rows(states[:20], 7, 1.0), rows(states[20:30], 7, 1.0), CONFIG)
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

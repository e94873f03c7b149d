"""``replay``: what one update took away, a later one does not give back."""

from pathlib import Path

import torch
from synthetic import peaked, weights_of
from test_learner import act, learner_with, same

from policies.head_pass import HeadPass
from policies.learner import HeadLearner

OLDER = peaked(T=30, seed=0, dtype=torch.float32)


def second_attempt() -> tuple[torch.Tensor, torch.Tensor]:
    """H and y of an attempt close to the first one: nearly its states, other tokens."""
    W, H, y = OLDER
    _, noise, _ = peaked(T=30, seed=5, dtype=torch.float32)
    near = H + 0.1 * noise
    logits = near @ W.T
    logits[torch.arange(30), y] = -torch.inf
    return near, logits.argmax(1)


def log_odds_of_the_first(learner: HeadLearner) -> torch.Tensor:
    W, H, y = OLDER
    return HeadPass(W, H, y).moments(learner.adapter).margin


def learned_twice(replay: bool) -> tuple[HeadLearner, torch.Tensor]:
    """The learner after two failed attempts, and the first one's log-odds after the first update."""
    learner = learner_with(weights_of("rosa", replay=replay, damping=1e-3))
    assert learner.update([-1.0] * 3).accepted
    between = log_odds_of_the_first(learner)
    act(learner, *second_attempt())
    assert learner.update([-1.0] * 3).accepted
    return learner, between


def test_what_was_taken_away_is_not_given_back() -> None:
    moved = HeadPass(*OLDER).moments(None).margin.sigmoid() < 0.99
    rise = {}
    for replay in (False, True):
        learner, between = learned_twice(replay)
        rise[replay] = (log_odds_of_the_first(learner) - between)[moved].clamp(min=0)
    assert rise[False].max() > 0.2  # without it there is something to mend
    assert rise[True].max() < 0.1 * rise[False].max()


def test_the_numbers_are_of_the_new_attempt_alone() -> None:
    learner = learner_with(weights_of("rosa", replay=True))
    learner.update([-1.0] * 3)
    act(learner, *second_attempt())
    update = learner.update([-1.0] * 3)
    assert update.numbers["T"] == 30 and update.numbers["replayed"] == 30
    assert [len(reply.before) for reply in update.replies] == [10, 10, 10]


def test_a_resumed_session_replays_bit_for_bit(tmp_path: Path) -> None:
    config = weights_of("rosa", replay=True)
    learner = learner_with(config)
    learner.update([-1.0] * 3)
    learner.save(tmp_path)
    resumed = HeadLearner(config, learner.weight, 0)
    resumed.load(tmp_path)
    for one in (learner, resumed):
        act(one, *second_attempt())
        assert one.update([-1.0] * 3).numbers["replayed"] == 30
    assert same(resumed.adapter, learner.adapter)


def test_rollback_forgets_what_would_be_replayed() -> None:
    learner = learner_with(weights_of("rosa", replay=True))
    learner.update([-1.0] * 3)
    learner.rollback()
    act(learner, *second_attempt())
    assert learner.update([-1.0] * 3).numbers["replayed"] == 0


def test_old_tokens_make_room_for_new_ones() -> None:
    learner = learner_with(weights_of("rosa", replay=True, max_tokens=40))
    learner.update([-1.0] * 3)
    act(learner, *second_attempt())
    assert learner.update([-1.0] * 3).numbers["replayed"] == 10

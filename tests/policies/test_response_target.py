"""Eq. 3 for a whole response: held against enumeration of every reply of a small policy."""

import itertools
import math

import pytest
import torch
from synthetic import parts, peaked, weights_of
from torch import Tensor

from envs.errors import AdaptationError
from policies.adapters.base import HeadAdapter
from policies.head_pass import HeadPass
from policies.learner import HeadLearner
from policies.marks import frame_tokens
from policies.methods.episode import Episode, log_rest
from policies.rosa.step import rosa_step
from policies.rosa.target import response_shift, target_of

F64 = torch.float64
V, LENGTH, d = 9, 3, 12


class Small:
    """A policy of all replies of three tokens out of nine: what was written decides H by a table."""

    def __init__(self, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        self.W = torch.randn(V, d, generator=g, dtype=F64)
        prefixes = [p for n in range(LENGTH) for p in itertools.product(range(V), repeat=n)]
        self.h = {p: torch.randn(d, generator=g, dtype=F64) for p in prefixes}

    def conditional(self, prefix: tuple[int, ...], adapter: HeadAdapter | None = None) -> Tensor:
        h = self.h[prefix][None]
        z = h @ self.W.T
        return (z if adapter is None else z + adapter.logits_delta(h, self.W))[0].softmax(0)

    def replies(self, adapter: HeadAdapter | None = None) -> dict[tuple[int, ...], float]:
        """π(y) of every reply."""
        return {
            y: math.prod(float(self.conditional(y[:i], adapter)[y[i]]) for i in range(LENGTH))
            for y in itertools.product(range(V), repeat=LENGTH)
        }

    def attempt(self, y: tuple[int, ...]) -> HeadPass:
        return HeadPass(self.W, torch.stack([self.h[y[:i]] for i in range(LENGTH)]), torch.tensor(y))


def of_reply(reward: float, n: int = LENGTH, frame: Tensor | None = None) -> Episode:
    return Episode(torch.full((n,), reward, dtype=F64), torch.zeros(n, dtype=torch.long), None, frame)


@pytest.mark.parametrize("reward", [-1.0, 0.5, 1.0])
@pytest.mark.parametrize("beta", [2.0, 0.5, 0.02])
@pytest.mark.parametrize("seed", range(3))
def test_token_targets_are_the_conditionals_of_the_reweighted_replies(seed: int, beta: float, reward: float) -> None:
    """π̃(y) ∝ π(y) e^{r/β} by enumeration, its conditionals by summing: the same as the closed form; as β → 0 y is excluded."""
    policy, y = Small(seed), (1, 3, 2)
    pi = policy.replies()
    weight = {z: p * (math.exp(reward / beta) if z == y else 1.0) for z, p in pi.items()}
    margin = policy.attempt(y).moments().margin
    config = weights_of("rosa", target="reply", tokens="all", protect=False, beta=beta)
    target = target_of(of_reply(reward), margin, config)
    for i in range(LENGTH):
        inside = sum(w for z, w in weight.items() if z[: i + 1] == y[: i + 1])
        before = sum(w for z, w in weight.items() if z[:i] == y[:i])
        rest = sum(w for z, w in weight.items() if z[:i] == y[:i] and z[i] != y[i])
        assert float(margin[i] + target.shift[i]) == pytest.approx(math.log(inside / rest), abs=1e-9)
        assert float((margin[i] + target.shift[i]).sigmoid()) == pytest.approx(inside / before, rel=1e-8)
    if reward < 0 and beta < 0.1:  # the exact conditional on "not y"
        assert weight[y] < 1e-20
        alone = sum(w for z, w in weight.items() if z[: LENGTH - 1] == y[:-1]) / sum(
            p for z, p in pi.items() if z[: LENGTH - 1] == y[:-1] and z != y
        )
        assert alone == pytest.approx(1.0)


@pytest.mark.parametrize(("mode", "beta"), [("lora", 0.7), ("lora", 8.0), ("hidden", 8.0)])
@pytest.mark.parametrize("seed", range(3))
def test_after_the_update_the_reply_has_the_probability_that_eq_3_gives_it(seed: int, mode: str, beta: float) -> None:
    """One vector before the head moves all prefixes alike: its step is near enough to linear only while it is small."""
    policy, y = Small(seed), (0, 2, 3)
    pi, w = policy.replies()[y], math.exp(-1 / beta)
    wanted = pi * w / (1 - (1 - w) * pi)
    config = weights_of("rosa", mode=mode, target="reply", tokens="all", protect=False, beta=beta, damping=1e-6)
    new, numbers = parts(rosa_step(policy.attempt(y), None, of_reply(-1.0), config, seed=0))
    assert new is not None and numbers["residual_after"] < 0.35 * numbers["residual_before"]
    found = policy.replies(new)[y]
    assert abs(math.log(found / wanted)) < 0.2 * math.log(pi / wanted)
    each, _ = parts(rosa_step(policy.attempt(y), None, of_reply(-1.0), config.model_copy(update={"target": "token"}), seed=0))
    assert math.log(pi / policy.replies(each)[y]) > 1.3 * math.log(pi / wanted)  # r/β on every token takes more than e^{r/β}


def test_an_open_continuation_takes_the_blame_off_what_came_before() -> None:
    margin = torch.tensor([0.0, 0.0, -3.0, 4.0], dtype=F64)  # the third token had many alternatives
    config = weights_of("rosa", target="reply", tokens="all", protect=False, beta=1.0)
    shift = target_of(of_reply(-1.0, 4), margin, config).shift
    assert float(shift[3]) == pytest.approx(-1.0) and float(shift[2]) < -0.9
    assert -0.03 < float(shift[0]) < 0 and -0.05 < float(shift[1]) < 0


def test_a_reply_ends_where_it_ends_and_an_episode_goes_on() -> None:
    margin = torch.tensor([1.0, 0.0, 0.5, -0.5], dtype=F64)
    episode = Episode(torch.full((4,), -1.0, dtype=F64), torch.tensor([0, 0, 1, 1]))
    settings = {"tokens": "all", "protect": False, "beta": 1.0}
    reply = target_of(episode, margin, weights_of("rosa", target="reply", **settings)).shift
    whole = target_of(episode, margin, weights_of("rosa", target="episode", **settings)).shift
    for part in (slice(0, 2), slice(2, 4)):
        alone = target_of(of_reply(-1.0, 2), margin[part], weights_of("rosa", target="reply", **settings)).shift
        torch.testing.assert_close(reply[part], alone)
    torch.testing.assert_close(whole[2:], reply[2:])
    p = margin.sigmoid()
    torch.testing.assert_close(whole[0], torch.log(1 - (1 - math.exp(-1)) * p[1] * p[2] * p[3]))


@pytest.mark.parametrize("x", [-2.0, -1e-3, 0.7, -700.0])
def test_the_shift_keeps_its_digits(x: float) -> None:
    """S from 1 − 1e-14 down to e^-400, against exact arithmetic in decimals."""
    from decimal import Decimal, getcontext

    getcontext().prec = 600
    log_S = [0.0, -1e-14, -1e-6, -0.1, -0.69, -0.71, -5.0, -40.0, -400.0]
    found = response_shift(torch.full((len(log_S),), x, dtype=F64), torch.tensor(log_S, dtype=F64))
    for value, ours in zip(log_S, found.tolist(), strict=True):
        exact = (1 - (1 - Decimal(x).exp()) * Decimal(value).exp()).ln()
        assert ours == pytest.approx(float(exact), rel=1e-9)


def test_what_frames_a_reply_is_never_pushed_away_and_may_be_drawn_nearer() -> None:
    margin, frame = torch.zeros(4, dtype=F64), torch.tensor([True, False, False, True])
    for target in ("reply", "episode"):
        config = weights_of("rosa", target=target, tokens="all", beta=1.0)
        shift = target_of(of_reply(-1.0, 4, frame), margin, config).shift
        assert shift[[0, 3]].tolist() == [0.0, 0.0] and float(shift[2]) == pytest.approx(-1.0)
        assert float(shift[1]) == pytest.approx(math.log(1 - (1 - math.exp(-1)) / 2))
        assert float(target_of(of_reply(1.0, 4, frame), margin, config).shift.min()) > 0
        with pytest.raises(AdaptationError, match="frame"):
            target_of(of_reply(-1.0, 4), margin, config)
    paper = target_of(of_reply(-1.0, 4, frame), margin, weights_of("rosa", tokens="all", beta=1.0)).shift
    assert paper.tolist() == [-1.0] * 4  # as in the paper unless asked for
    kept = target_of(of_reply(-1.0, 4, frame), margin, weights_of("rosa", tokens="all", beta=1.0, protect=True)).shift
    assert kept.tolist() == [0.0, -1.0, -1.0, 0.0]


def test_the_rest_of_a_reply_has_the_product_of_its_probabilities() -> None:
    log_p = torch.tensor([0.5, 0.25, 0.5, 0.125], dtype=F64).log()
    torch.testing.assert_close(log_rest(log_p, torch.tensor([0, 0, 0, 2])).exp(), torch.tensor([0.125, 0.5, 1.0, 1.0], dtype=F64))


@pytest.mark.parametrize("target", ["reply", "episode"])
@pytest.mark.parametrize("mode", ["lora", "hidden"])
def test_a_session_learns_so_over_attempts_and_protects_the_end(mode: str, target: str) -> None:
    W, _, _ = peaked(T=30, dtype=torch.float32)
    learner = HeadLearner(weights_of("rosa", mode=mode, target=target, replay=True, beta=0.5, tokens="all", damping=1e-3), W, 0)
    assert learner.wants_frame
    for seed in range(2):
        _, H, y = peaked(T=30, seed=seed, dtype=torch.float32)
        for step, (h, tokens) in enumerate(zip(H.chunk(3), y.chunk(3), strict=True)):
            learner.record(h, tokens, step, frame=torch.arange(10) == 9)
        update = learner.update([-1.0] * 3)
        assert update.accepted and update.numbers["log_odds_shift"] < 0
        ends = [reply.after[9] - reply.before[9] for reply in update.replies]
        assert min(ends) > (-0.3 if mode == "lora" else -1.5)
        assert min(a - b for r in update.replies for a, b in zip(r.after[:9], r.before[:9], strict=True)) < -0.2


def test_of_a_ui_reply_the_names_of_its_parts_are_the_frame() -> None:
    pieces = ["Thought", ":", " the", " Action", " menu", "\n", "Action", ":", " click", "(", "1", ")", "<|im_end|>"]
    assert [p for p, f in zip(pieces, frame_tokens(pieces), strict=True) if f] == ["Thought", ":", "\n", "Action", ":"]
    tagged = ["<tool", "_call>", '{"name"', "}", "</tool_call>", "```", "python", "\nx", "```"]
    assert frame_tokens(tagged).tolist() == [True, True, False, False, True, True, True, False, True]


def test_a_guided_target_is_the_guided_policy_and_needs_no_sign_of_the_reward() -> None:
    """After the update the head says without the guidance what it said with it."""
    policy, other, y = Small(0), Small(5), (0, 2, 3)
    other.W = policy.W  # the same model; its context is another one
    guided = other.attempt(y).moments().margin
    episode = Episode(torch.full((LENGTH,), -0.5, dtype=F64), torch.zeros(LENGTH, dtype=torch.long), guided=guided)
    config = weights_of("rosa", target="guided", tokens="all", protect=False, beta=1.0, damping=1e-9, max_halvings=20)
    margin = policy.attempt(y).moments().margin
    torch.testing.assert_close(target_of(episode, margin, config).shift, guided - margin)
    half = config.model_copy(update={"beta": 2.0})
    torch.testing.assert_close(target_of(episode, margin, half).shift, (guided - margin) / 2)
    new, numbers = parts(rosa_step(policy.attempt(y), None, episode, config, seed=0))
    assert new is not None and numbers["residual_after"] < 0.5 * numbers["residual_before"]
    nothing = Episode(torch.full((LENGTH,), -1.0, dtype=F64), torch.zeros(LENGTH, dtype=torch.long), guided=margin)
    assert not target_of(nothing, margin, config).moving.any()
    with pytest.raises(AdaptationError, match="no guidance"):
        target_of(of_reply(-1.0), margin, config)


def test_what_the_guidance_makes_doubtful_is_undecided() -> None:
    margin = torch.tensor([7.0, 7.0, 0.0], dtype=F64)
    guided = torch.tensor([-1.0, 7.5, 0.5], dtype=F64)
    episode = Episode(torch.full((3,), -1.0, dtype=F64), torch.zeros(3, dtype=torch.long), guided=guided)
    shift = target_of(episode, margin, weights_of("rosa", target="guided", protect=False, beta=1.0)).shift
    torch.testing.assert_close(shift, torch.tensor([-8.0, 0.0, 0.5], dtype=F64))


def test_large_rewards_keep_their_digits_too() -> None:
    x = torch.tensor([1000.0, 1000.0, 40.0, 1.0, 29.0], dtype=F64)
    log_S = torch.tensor([-2.0, -1e4, -1e-12, -30.0, -29.0], dtype=F64)
    wanted = [998.0, 0.0, 40.0, (math.e - 1) * math.exp(-30), math.log1p(math.exp(0.0) - math.exp(-29))]
    torch.testing.assert_close(response_shift(x, log_S), torch.tensor(wanted, dtype=F64), rtol=1e-9, atol=1e-15)


def learner_of(pieces: list[tuple[int, int]], per_reply: int, seed: int = 0, **config: object) -> HeadLearner:
    """One that has recorded pieces of (step, tokens)."""
    g = torch.Generator().manual_seed(seed)
    learner = HeadLearner(weights_of("rosa", target="reply", protect=False, **config), torch.randn(V, d, generator=g), 0)
    learner.pieces_per_reply = per_reply
    for step, n in pieces:
        learner.record(torch.randn(n, d, generator=g), torch.randint(0, V, (n,), generator=g), step)
    return learner


def test_a_reply_that_was_recorded_in_parts_is_one_response() -> None:
    """A thought that ran out of its budget: thought 0, its end 1, the answer 0, the end of the turn 1."""
    pieces = [(0, 3), (1, 1), (0, 2), (1, 1), (2, 2), (3, 1)]
    head, episode = learner_of(pieces, 2)._attempt([-1.0, 0.0, -1.0, 0.0])
    margin = head.moments(None).margin
    x = target_of(episode, margin, weights_of("rosa", target="reply", protect=False, tokens="all")).shift
    log_p = torch.nn.functional.logsigmoid(margin)
    wanted = response_shift(episode.rewards, torch.stack([log_p[i + 1 : 7 if i < 7 else 10].sum() for i in range(10)]))
    torch.testing.assert_close(x, wanted)


def test_of_a_long_attempt_what_is_dropped_still_follows() -> None:
    """S_i is the probability of all that followed a token, also of what the equations have no room for."""
    config = {"tokens": "all"}
    head, episode = learner_of([(0, 6), (1, 6)], 1, **config)._attempt([-1.0, -1.0])
    whole = target_of(episode, head.moments(None).margin, weights_of("rosa", target="reply", protect=False, **config)).shift
    short, few = learner_of([(0, 6), (1, 6)], 1, max_tokens=5, **config)._attempt([-1.0, -1.0])
    x = target_of(few, short.moments(None).margin, weights_of("rosa", target="reply", protect=False, **config)).shift
    at = [int((row == head.H).all(1).nonzero()[0, 0]) for row in short.H]
    assert len(x) == 5 and few.rest is not None
    torch.testing.assert_close(x, whole[at])

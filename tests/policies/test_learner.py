"""A session's learner: what it keeps, what an update changes and what it leaves alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from synthetic import SETTINGS, peaked, weights_of

from envs.errors import AdaptationError, StoreError, UsageError
from policies.adaptation import config_of
from policies.adapters.base import HeadAdapter
from policies.head_pass import HeadPass
from policies.learner import HeadLearner
from policies.methods import MethodConfig, NoneConfig

METHODS = list(SETTINGS)


def learner_with(config: MethodConfig, *, T: int = 30, seed: int = 0) -> HeadLearner:
    """A learner that has recorded an attempt of three replies."""
    W, H, y = peaked(T=T, dtype=torch.float32)
    learner = HeadLearner(config, W, seed)
    act(learner, H, y)
    return learner


def act(learner: HeadLearner, H: torch.Tensor, y: torch.Tensor) -> None:
    for step, (h, tokens) in enumerate(zip(H.chunk(3), y.chunk(3), strict=True)):
        learner.record(h, tokens, step)


def tensors(adapter: HeadAdapter | None) -> list[torch.Tensor]:
    assert adapter is not None
    return [*adapter.theta.values(), torch.tensor(getattr(adapter, "scale", 1.0))]


def same(a: HeadAdapter | None, b: HeadAdapter | None) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_an_update_moves_records_and_drops_the_capture(name: str) -> None:
    learner = learner_with(weights_of(name))
    assert learner.adapter is None and learner.captured_bytes > 0
    update = learner.update([-1.0] * 3)
    assert update.accepted and update.seconds > 0 and learner.adapter is not None and learner.captured_bytes == 0
    assert {"T", "rank", "delta_norm2", "kl_mean", "log_odds_shift", "extra_memory_mb"} <= set(update.numbers)
    if name.startswith("rosa"):
        assert {"residual_before", "residual_after", "lambda", "solver", "halvings", "iterations"} <= set(update.numbers)
    json.dumps(update.numbers, allow_nan=False)
    with pytest.raises(AdaptationError, match="captured"):
        learner.update([-1.0] * 3)


@pytest.mark.parametrize("name", METHODS)
def test_zero_rewards_move_nothing(name: str) -> None:
    learner = learner_with(weights_of(name))
    update = learner.update([0.0, 0.0, 0.0])
    assert not update.accepted and learner.adapter is None and "reason" in update.numbers


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_bits(name: str) -> None:
    first, second = (learner_with(weights_of(name), seed=3) for _ in range(2))
    assert first.update([-1.0, -0.5, 0.0]).accepted and second.update([-1.0, -0.5, 0.0]).accepted
    assert same(first.adapter, second.adapter)


def test_the_seed_is_what_draws_a_random_A() -> None:
    first, second = learner_with(weights_of("rosa-paper"), seed=3), learner_with(weights_of("rosa-paper"), seed=4)
    first.update([-1.0] * 3), second.update([-1.0] * 3)
    assert not same(first.adapter, second.adapter)


@pytest.mark.parametrize("name", METHODS)
def test_rollback_undoes_exactly_one_update(name: str) -> None:
    learner = learner_with(weights_of(name))
    with pytest.raises(UsageError):
        learner.rollback()
    learner.update([-1.0] * 3)
    first = learner.adapter
    _, H, y = peaked(T=30, seed=1, dtype=torch.float32)
    act(learner, H, y)
    assert learner.update([-1.0] * 3).accepted and learner.adapter is not first
    learner.rollback()
    assert learner.adapter is first
    with pytest.raises(UsageError):
        learner.rollback()


@pytest.mark.parametrize("name", [*METHODS, "hidden"])
def test_a_resumed_session_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    config = weights_of("rosa", mode="hidden") if name == "hidden" else weights_of(name)
    learner = learner_with(config)
    assert not learner.save(tmp_path) and not list(tmp_path.iterdir())
    learner.update([-1.0] * 3)
    assert learner.save(tmp_path)
    _, H, y = peaked(T=30, seed=1, dtype=torch.float32)
    resumed = HeadLearner(config, learner.weight, 0)
    resumed.load(tmp_path)
    assert same(resumed.adapter, learner.adapter) and resumed.updates == 1
    for one in (learner, resumed):
        act(one, H, y)
        one.update([-1.0] * 3)
    assert same(resumed.adapter, learner.adapter)


def test_adapters_of_other_models_are_refused(tmp_path: Path) -> None:
    learner = learner_with(weights_of("rosa"))
    learner.update([-1.0] * 3)
    learner.save(tmp_path)
    with pytest.raises(StoreError, match="another model"):
        HeadLearner(weights_of("rosa"), torch.randn(400, 32), 0).load(tmp_path)
    with pytest.raises(StoreError, match="HiddenShift"):
        HeadLearner(weights_of("rosa", mode="hidden"), learner.weight, 0).load(tmp_path)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("bad", ["H", "W"])
def test_nan_leaves_the_adapter_alone(name: str, bad: str) -> None:
    learner = learner_with(weights_of(name))
    learner.update([-1.0] * 3)
    before = learner.adapter
    _, H, y = peaked(T=30, seed=1, dtype=torch.float32)
    if bad == "H":
        H[4, 2] = torch.nan
    else:
        learner.weight = learner.weight.clone()
        learner.weight[17, 3] = torch.inf
    act(learner, H, y)
    with pytest.raises(AdaptationError):
        learner.update([-1.0] * 3)
    assert learner.adapter is before and learner.captured_bytes == 0 and learner.updates == 1


@pytest.mark.parametrize("rewards", [[-1.0], [-1.0, float("nan"), -1.0], [-2.0, 0.0, 0.0]])
def test_impossible_rewards_are_refused(rewards: list[float]) -> None:
    learner = learner_with(weights_of("rosa"))
    with pytest.raises(AdaptationError):
        learner.update(rewards)
    assert learner.adapter is None


def test_discard_forgets_the_attempt_in_flight() -> None:
    learner = learner_with(weights_of("rosa"))
    learner.discard()
    with pytest.raises(AdaptationError):
        learner.update([-1.0] * 3)


def test_dense_rewards_move_their_own_step() -> None:
    learner = learner_with(weights_of("rosa", tokens="all", beta=0.5, damping=1e-3))
    W, H, y = peaked(T=30, dtype=torch.float32)
    learner.update([0.0, -1.0, 1.0])
    shift = HeadPass(W, H, y).moments(learner.adapter).margin - HeadPass(W, H, y).moments().margin
    quiet, down, up = shift.chunk(3)
    assert abs(float(quiet.mean())) < 0.1 and float(down.mean()) < -1.5 and float(up.mean()) > 1.5


def test_the_capture_stays_within_its_budget() -> None:
    W, H, y = peaked(T=3000, dtype=torch.float32)
    learner = HeadLearner(weights_of("rosa", host_mb=0.1), W, 0)
    for step in range(30):
        learner.record(H[step * 100 : step * 100 + 100], y[step * 100 : step * 100 + 100], step)
    assert 0 < learner.captured_bytes <= 0.1 * 2**20
    update = learner.update([-1.0] * 30)
    assert update.accepted and update.numbers["T"] + update.numbers["tokens_dropped"] == 3000


def test_of_a_long_attempt_the_least_confident_tokens_are_taken() -> None:
    W, H, y = peaked(T=60, dtype=torch.float32)
    learner = HeadLearner(weights_of("rosa", beta=0.5, max_tokens=20), W, 0)
    learner.record(H, y, 0)
    update = learner.update([-1.0])
    assert update.numbers["T"] == 20 and update.numbers["tokens_dropped"] == 40
    before, after = HeadPass(W, H, y).moments().margin, HeadPass(W, H, y).moments(learner.adapter).margin
    assert float((after - before)[before.argsort()[:20]].mean()) < -1


def test_the_residual_under_another_context_moves_nothing() -> None:
    learner = learner_with(weights_of("rosa", linearization="probability", tokens="all"))
    failed = learner.residual([-1.0] * 3)
    W, H, y = peaked(T=30, dtype=torch.float32)
    learner.record(H + 0.5 * W[y], y, 0)  # a context that makes the tokens likelier
    refined = learner.residual([-1.0])
    assert learner.adapter is None and learner.captured_bytes == 0
    assert 0 < refined["residual"] < failed["residual"] and refined["delta_norm2"] > 0


def test_the_theorems_error_terms_do_not_depend_on_the_updates_own_linearisation() -> None:
    """‖R‖ and ‖Δθ‖² were once of two parametrisations, which cannot be held against each other."""
    terms = [
        learner_with(weights_of("rosa", linearization=linearization, tokens="all")).residual([-1.0] * 3)
        for linearization in ("log_odds", "probability")
    ]
    assert terms[0] == terms[1]


def test_the_papers_step_is_taken_as_it_comes_and_ours_is_checked() -> None:
    paper = learner_with(weights_of("rosa-paper", cg_iterations=10))
    checked = learner_with(weights_of("rosa-paper", cg_iterations=10, check=True, max_halvings=30))
    first, second = paper.update([-1.0] * 3), checked.update([-1.0] * 3)
    assert first.accepted and first.numbers["halvings"] == 0
    assert first.numbers["residual_after"] > first.numbers["residual_before"], "it does harm here, and is taken"
    assert second.numbers["halvings"] > 0 and second.numbers["residual_after"] < second.numbers["residual_before"]


def test_settings_are_checked_and_named() -> None:
    paper = weights_of("rosa-paper")
    assert (paper.rank, paper.alpha, paper.solver, paper.linearization, paper.a_init) == (1, 8.0, "cg", "probability", "random")
    with pytest.raises(UsageError, match="'rosa'"):
        config_of({"method": "rossa"})
    with pytest.raises(UsageError, match="setting of rl"):
        weights_of("rosa", lr=0.1)
    with pytest.raises(UsageError, match="beta"):
        weights_of("rosa", betta=1.0)
    for wrong in ({"beta": 0}, {"rank": 0}, {"solver": "newton"}, {"damping": float("nan")}, {"mode": "loar"}):
        with pytest.raises(ValidationError):
            weights_of("rosa", **wrong)
    with pytest.raises(UsageError):
        HeadLearner(NoneConfig(), torch.randn(4, 3), 0)


MEMORY = """
import resource, sys, torch
from policies.learner import HeadLearner
from policies.rosa.config import RosaConfig
T, V, d = 512, 60_000, 64
torch.manual_seed(0)
W = torch.randn(V, d)
learner = HeadLearner(RosaConfig(tokens="all", rank=1, max_rank=8, memory_mb=16), W, 0)
learner.record(torch.randn(8, d), torch.randint(0, V, (8,)), 0)
learner.update([-1.0])  # libraries and threads are up before the mark is read
H = torch.randn(T, d)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
learner.record(H, torch.randint(0, V, (T,)), 0)
assert learner.update([-1.0]).accepted
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_an_update_never_holds_the_logits_of_all_tokens() -> None:
    """T×V would be 117 MB here; 16 MB of work and some T×T matrices of 2 MB are what an update may take."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=300, check=True)
    assert float(done.stdout.strip().splitlines()[-1]) < 16 + 10 * 2 + 20

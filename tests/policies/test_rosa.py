"""ROSA's maths, mostly in float64: two solvers agree, derivatives and identities hold, and a step never makes things worse."""

import math

import pytest
import torch
from synthetic import parts, peaked, weights_of
from torch import Tensor

from envs.errors import AdaptationError
from policies.adapters import adapter_class
from policies.adapters.base import HeadAdapter, norm2
from policies.adapters.directions import leading_directions
from policies.adapters.hidden import HiddenShift
from policies.adapters.lora import LoRAHead
from policies.head_pass import HeadPass
from policies.methods.episode import Episode
from policies.rosa.cg import Jacobian, cg
from policies.rosa.config import RosaConfig
from policies.rosa.solve import Problem, dual, solve_psd
from policies.rosa.step import rosa_step
from policies.rosa.target import probability_gap, target_of

F64 = torch.float64


def failed(T: int, per_step: int = 10, reward: float = -1.0) -> Episode:
    return Episode(torch.full((T,), reward, dtype=F64), torch.arange(T) // per_step)


def some_lora(V: int, d: int, r: int) -> LoRAHead:
    g = torch.Generator().manual_seed(5)
    B = 0.2 * torch.randn(V, r, generator=g, dtype=F64)
    return LoRAHead(torch.randn(r, d, generator=g, dtype=F64) / d**0.5, B, 1.5)


def settings(**changes: object) -> RosaConfig:
    return weights_of("rosa", **{"tokens": "all", "beta": 0.5, "damping": 0.05, "cg_iterations": 500, **changes})


def problem_of(head: HeadPass, adapter: HeadAdapter | None, episode: Episode, config: RosaConfig) -> Problem:
    """What both solvers need, of the pass over the head too."""
    kind = adapter_class(config.mode)
    base, free = adapter or kind.zero(config, head, 1), kind.free(config)
    moments = head.moments(base, **kind.needs(base, free, "full") | ({"g2": True} if config.mode == "lora" else {}))
    target = target_of(episode, moments.margin, config)
    return Problem(head, kind.with_room(base, head, target.keep, target.moving, config), free, moments, target, config)


def relative(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return math.sqrt(norm2({k: a[k] - b[k] for k in b}) / norm2(b))


CASES = [
    {"rank": 1, "alpha": 8.0, "a_init": "random"},
    {"rank": 5, "alpha": 8.0, "a_init": "random"},
    {"rank": 8, "a_init": "attempt"},
    {"rank": None, "a_init": "attempt"},
    {"mode": "hidden"},
]


@pytest.mark.parametrize("linearization", ["probability", "log_odds"])
@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_dual_is_converged_cg(case: dict[str, object], zero: bool, linearization: str) -> None:
    W, H, y = peaked(T=24, V=200)
    config = settings(**case, linearization=linearization)
    old: HeadAdapter | None = None
    if not zero:
        old = HiddenShift(0.1 * W[3]) if config.mode == "hidden" else some_lora(*W.shape, 3)
    problem = problem_of(HeadPass(W, H, y, memory_mb=0.5), old, failed(len(y)), config)
    exact, iterated = dual(problem), cg(problem, converged=1e-14)
    assert iterated.lam == pytest.approx(exact.lam, rel=1e-10)
    delta = {name: exact.delta.get(name, torch.zeros_like(value)) for name, value in iterated.delta.items()}
    assert relative(delta, iterated.delta) < 1e-8
    assert norm2(delta) > 0


@pytest.mark.parametrize("linearization", ["probability", "log_odds"])
@pytest.mark.parametrize("mode", ["lora", "hidden"])
def test_finite_differences_confirm_J(mode: str, linearization: str) -> None:
    W, H, y = peaked(T=20)
    config = settings(mode=mode, rank=2, a_init="random", linearization=linearization)
    head = HeadPass(W, H, y)
    theta = HiddenShift(0.1 * W[3]) if mode == "hidden" else some_lora(*W.shape, 2)
    problem = problem_of(head, theta, failed(20, per_step=4), config)
    J = Jacobian(problem)
    g = torch.Generator().manual_seed(0)
    v = {name: torch.randn(value.shape, generator=g, dtype=F64) for name, value in J.params.items()}

    def observed(step: float) -> Tensor:
        return problem.target.value(head.moments(theta.moved(v, step)).margin)

    numeric = (observed(1e-5) - observed(-1e-5)) / 2e-5
    analytic = J.forward(v) * math.exp(problem.unit)
    torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-8 * float(numeric.abs().max()))
    # ... and the closed forms are the same J: ⟨Jᵀu, v⟩ = ⟨u, J v⟩ with Jᵀu from the adapter
    u = torch.randn(len(numeric), generator=g, dtype=F64)
    closed = theta.pull(head, problem.moments, torch.exp(problem.target.log_slope(problem.margin)) * u, problem.free)
    assert float(sum((closed[k] * v[k]).sum() for k in v)) == pytest.approx(float(u @ numeric), rel=1e-5)


def test_target_is_a_shift_of_the_log_odds() -> None:
    """Eq. 3 as written, π̃ = p e^{r/β} / Z, is logit π̃ = logit p + r/β."""
    logit = torch.linspace(-12, 12, 49, dtype=F64)
    for x in (-4.0, -0.5, 0.5, 4.0):
        p = logit.sigmoid()
        paper = p * math.exp(x) / (p * math.exp(x) + 1 - p)
        torch.testing.assert_close(torch.logit(paper), logit + x, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(probability_gap(logit, torch.full_like(logit, x)), paper - p, rtol=1e-9, atol=1e-15)


def test_the_gap_keeps_its_digits_at_the_ends() -> None:
    """At p = 1 − 1e-30, π̃ − p is −1e-30·(e² − 1): far below the spacing of floats at 1."""
    logit = torch.tensor([69.0, -69.0, 600.0, 0.0], dtype=F64)
    x = torch.tensor([-2.0, -2.0, -2.0, 900.0], dtype=F64)
    gap = probability_gap(logit, x)
    assert float(gap[0]) == pytest.approx(-math.exp(-69) * math.expm1(2), rel=1e-12)
    assert float(gap[1]) == pytest.approx(math.exp(-69) * math.expm1(-2), rel=1e-12)
    assert float(gap[2]) < 0 and float(gap[3]) == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_odds_of_certain_tokens_are_exact(dtype: torch.dtype) -> None:
    """p rounds to 1 (or 0) long before its log-odds stop meaning something."""
    V, T = 300, 3
    W = torch.eye(V, dtype=dtype)
    y = torch.tensor([4, 7, 9])
    H = torch.zeros(T, V, dtype=dtype)
    H[0, 4], H[1, 7] = 60.0, -60.0
    margin = HeadPass(W, H, y).moments().margin
    expected = torch.tensor([60.0, -60.0, 0.0], dtype=F64) - math.log(V - 1)
    torch.testing.assert_close(margin, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("memory_mb", [0.2, 64.0])
def test_the_pass_over_chunks_is_the_plain_formula(memory_mb: float) -> None:
    W, H, y = peaked(T=300, V=401, d=24)
    adapter, head = some_lora(401, 24, 3), HeadPass(W, H, y, memory_mb=memory_mb)
    m = head.moments(adapter, gram=True, g2=True, B=adapter.B, gW=True)
    z = H @ (W + adapter.scale * adapter.B @ adapter.A).T
    rest = z.scatter(1, y[:, None], -torch.inf)
    G = torch.nn.functional.one_hot(y, 401) - rest.softmax(1)
    assert m.gram is not None and m.gB is not None and m.gW is not None and m.g2 is not None
    torch.testing.assert_close(m.margin, z.gather(1, y[:, None])[:, 0] - rest.logsumexp(1))
    torch.testing.assert_close(m.gram, G @ G.T)
    torch.testing.assert_close(m.g2, G.square().sum(1))
    torch.testing.assert_close(m.gB, G @ adapter.B)
    torch.testing.assert_close(m.gW, G @ W)
    a = torch.linspace(-1, 1, 300, dtype=F64)
    new = adapter.moved(adapter.pull(head, m, a, ("A", "B")), 0.01)
    assert isinstance(new, LoRAHead)
    margin, kl = head.compare(adapter, new, m)
    q1, q0 = (H @ (W + new.scale * new.B @ new.A).T).log_softmax(1), z.log_softmax(1)
    torch.testing.assert_close(kl, (q1.exp() * (q1 - q0)).sum(1), rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(margin, head.moments(new).margin)


def test_token_rank_is_the_exact_change_of_the_whole_head() -> None:
    """A that spans H: s·ΔB A = Σ_i a_i ĝ_i h_iᵀ, and the log-odds move by r/β."""
    W, H, y = peaked(T=20)
    head, config = HeadPass(W, H, y), settings(damping=1e-8)
    m = head.moments(gram=True)
    new, numbers = parts(rosa_step(head, None, failed(20), config, seed=0))
    assert isinstance(new, LoRAHead) and new.rank == 20 and m.gram is not None
    a = solve_psd(m.gram * (H @ H.T), 0.0, torch.full((20,), -2.0, dtype=F64))
    z = (H @ W.T).scatter(1, y[:, None], -torch.inf)
    G = torch.nn.functional.one_hot(y, len(W)) - z.softmax(1)
    torch.testing.assert_close(new.scale * new.B @ new.A, G.T @ (a[:, None] * H), rtol=1e-5, atol=1e-6)
    assert numbers["log_odds_shift"] == pytest.approx(-2.0, abs=0.1)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("linearization", ["probability", "log_odds"])
def test_an_accepted_step_never_raises_the_residual(linearization: str, case: dict[str, object], seed: int) -> None:
    """Recomputed here from the adapter alone, with strong rewards, light damping and a second update on top."""
    W, H, y = peaked(seed=seed)
    config = settings(**case, linearization=linearization, beta=0.1, damping=1e-3)
    adapter: HeadAdapter | None = None
    for _ in range(2):
        before = HeadPass(W, H, y).moments(adapter).margin
        new, numbers = parts(rosa_step(HeadPass(W, H, y), adapter, failed(len(y)), config, seed=seed))
        if new is None:
            assert numbers["residual_after"] >= numbers["residual_before"] and "reason" in numbers
            return
        after = HeadPass(W, H, y).moments(new).margin
        eq = target_of(failed(len(y)), before, config)
        assert float(eq.gap(before, after).norm()) < float(eq.gap(before, before).norm())
        assert numbers["kl_mean"] > 0 and numbers["delta_norm2"] > 0
        adapter = new


@pytest.mark.parametrize("case", [{"rank": 8, "a_init": "random"}, {"rank": 8}, {"rank": 16}, {"rank": None}], ids=str)
def test_light_damping_reaches_the_target_in_log_odds(case: dict[str, object]) -> None:
    for seed in range(3):
        W, H, y = peaked(seed=seed)
        _, numbers = parts(rosa_step(HeadPass(W, H, y), None, failed(len(y)), settings(**case, beta=1.0, damping=1e-4), seed=seed))
        assert numbers["residual_after"] < 0.05 * numbers["residual_before"]
        assert numbers["log_odds_shift"] == pytest.approx(-1.0, abs=0.05)


@pytest.mark.parametrize("reward", [-1.0, 1.0])
def test_the_sign_of_the_reward_is_the_sign_of_the_move(reward: float) -> None:
    W, H, y = peaked()
    new, numbers = parts(rosa_step(HeadPass(W, H, y), None, failed(len(y), reward=reward), settings(), seed=0))
    assert new is not None and numbers["log_odds_shift"] * reward > 0.5


def test_unrewarded_tokens_stay() -> None:
    """Confident tokens and steps of reward 0 are anchored: their log-odds do not follow the penalised ones."""
    W, H, y = peaked(T=40)
    rewards = torch.where(torch.arange(40) < 20, -1.0, 0.0).double()
    config = settings(tokens="undecided", p_max=0.9, damping=1e-6)
    head = HeadPass(W, H, y)
    m0 = head.moments().margin
    new, _ = parts(rosa_step(head, None, Episode(rewards, torch.arange(40) // 10), config, seed=0))
    assert new is not None
    shift = head.moments(new).margin - m0
    moving = (rewards != 0) & (m0.sigmoid() < 0.9)
    assert 0 < int(moving.sum()) < 20
    assert float(shift[moving].mean()) < -1.5
    assert float(shift[~moving].abs().max()) < 0.2
    loose, _ = parts(
        rosa_step(head, None, Episode(rewards, torch.arange(40) // 10), config.model_copy(update={"anchor": False}), seed=0)
    )
    assert loose is not None
    drift = head.moments(loose).margin - m0
    assert float(drift[~moving].abs().mean()) > float(shift[~moving].abs().mean())


def test_coordinates_need_marks() -> None:
    W, H, y = peaked(T=20)
    config = settings(tokens="coordinates")
    with pytest.raises(AdaptationError, match="coordinate"):
        rosa_step(HeadPass(W, H, y), None, failed(20), config, seed=0)
    marks = torch.arange(20) % 4 == 0
    _, numbers = parts(rosa_step(HeadPass(W, H, y), None, Episode(failed(20).rewards, failed(20).steps, marks), config, seed=0))
    assert numbers["moved_tokens"] == 5 and numbers["equations"] == 20


def test_updates_add_up_within_the_rank_limit() -> None:
    """New directions are appended, spanned ones are not; beyond max_rank the nearest smaller adapter is taken."""
    W, H, y = peaked(T=40, d=64)
    config = settings(tokens="all", max_rank=30)
    first, _ = parts(rosa_step(HeadPass(W, H[:20], y[:20]), None, failed(20), config, seed=0))
    again, _ = parts(rosa_step(HeadPass(W, H[:20], y[:20]), first, failed(20), config, seed=0))
    second, _ = parts(rosa_step(HeadPass(W, H[20:], y[20:]), again, failed(20), config, seed=0))
    assert first is not None and again is not None and second is not None
    assert (first.rank, again.rank, second.rank) == (20, 20, 30)
    assert (
        float((HeadPass(W, H[20:], y[20:]).moments(second).margin - HeadPass(W, H[20:], y[20:]).moments(again).margin).mean()) < -1
    )


def test_compression_is_the_nearest_adapter() -> None:
    big = some_lora(100, 24, 10)
    change = big.scale * big.B @ big.A
    small = big.truncated(4)
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    torch.testing.assert_close(small.scale * small.B @ small.A, (left[:, :4] * values[:4]) @ right[:4])
    torch.testing.assert_close(small.A @ small.A.T, torch.eye(4, dtype=F64))
    assert big.truncated(10) is big
    # B has fewer directions than rows are asked for: nothing is lost, and nothing is divided by zero
    poor = LoRAHead(big.A, torch.cat([big.B[:, :2]] * 5, dim=1), big.scale)
    torch.testing.assert_close(poor.truncated(4).B @ poor.truncated(4).A, poor.B @ poor.A)


def test_leading_directions_agree_with_the_svd_when_large() -> None:
    g = torch.Generator().manual_seed(0)
    H = torch.randn(1100, 12, generator=g, dtype=F64) @ torch.randn(12, 1100, generator=g, dtype=F64)
    H += 0.01 * torch.randn(1100, 1100, generator=g, dtype=F64)
    V = leading_directions(H, 12)
    assert V.shape == (12, 1100)
    torch.testing.assert_close(V @ V.T, torch.eye(12, dtype=F64), atol=1e-10, rtol=0)
    left = (H - H @ V.T @ V).norm()
    assert float(left) < 1.001 * float(torch.linalg.svdvals(H)[12:].norm())


def test_singular_systems_get_the_least_norm_solution() -> None:
    K = torch.ones(3, 3, dtype=F64)
    torch.testing.assert_close(solve_psd(K, 0.0, torch.full((3,), 3.0, dtype=F64)), torch.ones(3, dtype=F64))


@pytest.mark.parametrize("where", ["H", "W", "-W", "adapter"])
@pytest.mark.parametrize("mode", ["lora", "hidden"])
def test_nan_and_inf_are_typed_errors(where: str, mode: str) -> None:
    W, H, y = peaked(T=10)
    adapter: HeadAdapter | None = None
    if where == "H":
        H[3, 2] = torch.nan
    elif where == "W":
        W[7, 1] = torch.inf
    elif where == "-W":
        W[7, 1] = -torch.inf
    else:
        bad = some_lora(*W.shape, 2)
        bad.B[5, 0] = torch.nan
        adapter = HiddenShift(torch.full((W.shape[1],), torch.nan, dtype=F64)) if mode == "hidden" else bad
    with pytest.raises(AdaptationError):
        rosa_step(HeadPass(W, H, y), adapter, failed(10), settings(mode=mode), seed=0)


def test_bf16_heads_are_solved_in_float32() -> None:
    W, H, y = peaked(dtype=torch.bfloat16)
    new, numbers = parts(rosa_step(HeadPass(W, H, y), None, failed(len(y)), settings(), seed=0))
    wide, exact = parts(rosa_step(HeadPass(W.double(), H.double(), y), None, failed(len(y)), settings(), seed=0))
    assert isinstance(new, LoRAHead) and isinstance(wide, LoRAHead) and new.B.dtype == torch.float32
    assert numbers["residual_after"] == pytest.approx(exact["residual_after"], rel=1e-3)
    torch.testing.assert_close((new.B @ new.A).double(), wide.B @ wide.A, rtol=1e-2, atol=1e-4)


def test_cg_asks_the_pass_for_no_square_matrices() -> None:
    W, H, y = peaked(T=10)
    moments = HeadPass(W, H, y).moments(**LoRAHead.needs(None, ("A", "B"), "diagonal"))
    assert moments.gram is None and moments.gW is None and moments.g2 is not None

"""The numbers of the final table against numbers worked out by hand."""

import tracemalloc

import pytest

from agentlab.disk.row import Breakage, Row, Seconds, UpdateColumns
from agentlab.results import metrics, resampling
from agentlab.results.metrics import SessionSummary
from agentlab.results.repeats import pass_at, pass_hat, repeated
from agentlab.results.report import summary_lines

SECONDS = {"acting": 1.0, "environment": 0.5, "words": 0.0, "weights": 0.25, "rest": 0.25}


def graded(task: str, attempt: int, success: bool, *, over: bool | None = None, actions: str = "", **more: object) -> Row:
    row = {
        "task": task,
        "name": task.split("_")[0],
        "seed": 1,
        "attempt": attempt,
        "outcome": "graded",
        "success": success,
        "session_over": success if over is None else over,
        "steps": 2,
        "seconds": Seconds(**SECONDS),
        "memory": {"rss": 100.0 + attempt},
        "actions_hash": actions or f"{task}{attempt}",
    }
    return Row(**row | more)


def updated(accepted: bool) -> UpdateColumns:
    return UpdateColumns(method="rosa", accepted=accepted, seconds=0.1)


def broken(task: str, attempt: int, **more: object) -> Row:
    failure = Breakage(component="browser", message="died")
    return graded(task, attempt, False, over=True, outcome="infrastructure", steps=0, infrastructure=[failure] * 3, **more)


@pytest.fixture
def rows() -> list[Row]:
    """Five sessions of three attempts: solved at 1, at 2, at 3, never, and ended by the machinery at attempt 2."""
    return [
        graded("a_1", 1, True),
        graded("b_1", 1, False, update=updated(True)),
        graded("b_1", 2, True, unparsable=1),
        graded("c_1", 1, False, actions="same", update=updated(False)),
        graded("c_1", 2, False, actions="same"),
        graded("c_1", 3, True, redrawn=5, redrawn_unparsable=2),
        graded("d_1", 1, False, actions="x"),
        graded("d_1", 2, False, actions="y"),
        graded("d_1", 3, False, actions="x", over=True),
        graded("e_1", 1, False),
        broken("e_1", 2),
    ]


def test_summary(rows):
    s = metrics.summarize(rows, attempts=3)
    assert (s.sessions, s.finished, s.solved) == (5, 5, 3)
    assert s.success_at == pytest.approx([1 / 5, 2 / 5, 3 / 5])  # the broken session stays in the denominator
    assert s.newly_solved == [1, 1, 1]
    assert s.failed_first == 4
    assert s.correction_uplift == pytest.approx(2 / 4)
    assert s.average_attempts == pytest.approx((1 + 2 + 3 + 3) / 4)
    assert s.attempts_per_solved == pytest.approx(9 / 3)
    assert s.exact_repeats == pytest.approx(2 / 5)  # retries: b2, c2*, c3, d2, d3*
    assert s.unparsable == pytest.approx(1 / 20)
    assert s.unparsable_draws == pytest.approx(3 / 25)  # c3 took none of two that were no action, and of three repeats
    assert (s.infrastructure_sessions, s.infrastructure_failures) == (1, 3)
    assert (s.updates, s.updates_accepted) == (2, 1)
    assert s.seconds_per_attempt == pytest.approx(SECONDS)
    assert s.seconds_per_session == pytest.approx(11 * 2.0 / 5)
    assert s.memory == {"rss": 103.0}


def test_unfinished_sessions_are_not_counted_as_failures(rows):
    s = metrics.summarize([*rows, graded("f_1", 1, False)], attempts=3, planned=10)
    assert (s.sessions, s.finished) == (10, 5)
    assert s.success_at[-1] == pytest.approx(3 / 5)
    assert s.seconds_per_session == pytest.approx(11 * 2.0 / 5)  # nor are their seconds those of the sessions that ended


def test_a_machinery_failure_at_attempt_one_is_no_failed_first_attempt():
    s = metrics.summarize([broken("a_1", 1)], attempts=2)
    assert (s.failed_first, s.correction_uplift, s.success_at) == (0, None, [0.0, 0.0])


def test_no_rows_at_all():
    s = metrics.summarize([], attempts=2)
    assert s.success_at == [0.0, 0.0] and s.average_attempts is None and s.exact_repeats is None


def test_paired_bootstrap_is_seeded_and_covers_the_mean():
    a, b = [0, 0, 1, 0, 1, 0, 0, 1] * 5, [1, 0, 1, 1, 1, 0, 1, 1] * 5
    mean, (low, high) = resampling.paired_bootstrap(a, b, seed=3)
    assert mean == pytest.approx(15 / 40)
    assert low < mean < high and low > 0
    assert resampling.paired_bootstrap(a, b, seed=3) == (mean, (low, high))


def test_paired_bootstrap_over_groups_is_wider_when_groups_agree():
    a, b = [0] * 40, [1] * 20 + [0] * 20
    _, single = resampling.paired_bootstrap(a, b, seed=0)
    _, grouped = resampling.paired_bootstrap(a, b, seed=0, groups=["x"] * 20 + ["y"] * 20)
    assert grouped == (0.0, 1.0) and single[0] > 0.3


def test_paired_bootstrap_of_many_tasks_takes_little_memory_and_draws_what_it_would_draw_at_once(monkeypatch):
    a, b = [0.0] * 3000, [1.0, 0.0, 0.5] * 1000
    tracemalloc.start()
    found = resampling.paired_bootstrap(a, b, seed=5, resamples=2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20  # at once, 46 MB of draws, and as much again twice
    monkeypatch.setattr(resampling, "BLOCK", 10**9)
    assert resampling.paired_bootstrap(a, b, seed=5, resamples=2000) == found


def test_paired_bootstrap_needs_pairs():
    with pytest.raises(ValueError, match="paired"):
        resampling.paired_bootstrap([1], [1, 0], seed=0)


def test_the_sign_flip_test_is_mcnemars_where_every_instance_is_a_group_of_its_own():
    a = [1.0] * 1 + [0.0] * 9
    b = [0.0] * 1 + [1.0] * 6 + [0.0] * 3
    assert resampling.sign_flip(a, b, [str(i) for i in range(10)]) == pytest.approx(2 * (1 + 7) / 2**7)
    assert resampling.sign_flip([1.0], [1.0], ["x"]) == 1.0


def test_the_sign_flip_test_takes_alike_instances_for_one_witness():
    a, b = [0.0] * 40, [1.0] * 40
    names = [name for name in "abcd" for _ in range(10)]
    assert resampling.sign_flip(a, b, names) == 2 / 2**4
    assert resampling.sign_flip(a, b, [str(i) for i in range(40)]) == 1 / 100_001, "the least that the draws can say"


def test_repeats_by_hand():
    """Three sessions at two instances: solved 2 of 3 and 0 of 3; a third instance, which has two sessions only, does not count."""
    rows = [
        graded(f"{name}_1" + (f".r{repeat}" if repeat > 1 else ""), 1, (name, repeat) in {("a", 1), ("a", 3), ("c", 1)}, over=True)
        .model_copy(update={"name": name, "repeat": repeat})
        for name in "abc" for repeat in ((1, 2, 3) if name != "c" else (1, 2))
    ]  # fmt: skip
    found = repeated(metrics.ended_sessions(rows), 1)
    assert found is not None and (found.repeats, found.instances, found.each) == (3, 2, [0.5, 0.0, 0.5])
    assert [round(value, 6) for value, _ in found.at] == [round(2 / 6, 6), 0.5, 0.5]
    assert [round(value, 6) for value, _ in found.hat] == [round(2 / 6, 6), round(1 / 6, 6), 0.0]
    assert found.within == pytest.approx((1 / 3 / 2) ** 0.5)
    lines = dict(summary_lines(metrics.summarize(rows, attempts=1)))
    assert lines["pass@3 and pass^3 of 2 instances"] == "50.0% and 0.0%"
    assert (pass_at(5, 2, 2), pass_hat(5, 2, 2)) == (pytest.approx(0.7), pytest.approx(0.1))
    assert repeated(metrics.ended_sessions(rows[:1]), 1) is None


def test_infeasible_tasks_and_part_marks_are_reported_apart():
    """All tasks, and the feasible ones alone; what the machinery ended stays in the denominator."""
    rows = [
        graded("a_1", 1, True, score=1.0, feasible=True),
        graded("b_1", 1, True, score=1.0, feasible=False),
        graded("c_1", 1, False, over=True, score=0.25, feasible=True),
        broken("d_1", 1, feasible=True),
    ]
    summary = metrics.summarize(rows, attempts=1)
    assert (summary.success_at, summary.first_score) == ([0.5], 2.25 / 4)
    assert (summary.feasible_sessions, summary.feasible_success_at, summary.feasible_first_score) == (3, [1 / 3], 1.25 / 3)
    lines = dict(summary_lines(summary))
    assert lines["success@1 … on the 3 feasible tasks"] == "33.3%"
    assert lines["mean score at attempt 1"] == "56.2% (feasible tasks: 41.7%)"


def test_what_androidworld_counts_stands_beside_what_we_count():
    """33 of 116 where two tasks cannot be initialised: 28.4 % of all, 28.9 % as upstream's runner has it."""
    rows = [graded(f"T{n}_1", 1, n < 33, over=True, score=float(n < 33)) for n in range(114)]
    lines = dict(summary_lines(metrics.summarize([*rows, broken("T114_1", 1), broken("T115_1", 1)], attempts=1)))
    assert lines["success@1"] == "28.4%"
    ours = next(value for name, value in lines.items() if "AndroidWorld's own count" in name)
    assert ours.startswith("28.9%") and "114" in ours and "2 count as unsolved" in ours
    instances = [graded("A_1", 1, True, score=1.0), *(graded(task, 1, False, over=True, score=0.0) for task in ("A_2", "B_1"))]
    assert metrics.summarize(instances, attempts=1).graded_first_score == 0.25, "the mean of the tasks' means"
    assert not any("AndroidWorld" in name for name, _ in summary_lines(metrics.summarize(rows, attempts=1))), "both are the same"


def at_repeat(instance: str, repeat: int, *, solved: bool, name: str = "t") -> SessionSummary:
    task = instance + (f".r{repeat}" if repeat > 1 else "")
    return SessionSummary(task, name, "", 1 if solved else None, 1, False, not solved, instance=instance, repeat=repeat)


def test_of_one_task_its_instances_are_resampled_not_their_repeats():
    """Repeats of one instance say the same again."""
    found = [at_repeat(f"t_{i}", r, solved=i < 2) for i in range(4) for r in range(1, 21)]
    (_, (low, high)) = metrics.success_bands(found, 1)[0]
    assert low <= 0.05 and high >= 0.95


def test_only_instances_that_have_every_repeat_count():
    made = [("a", 1, True), ("a", 2, True), ("b", 1, True), ("b", 3, False), ("c", 1, False), ("c", 2, True)]
    found = repeated([at_repeat(one, r, solved=solved) for one, r, solved in made], 1)
    assert found is not None and (found.repeats, found.instances, found.each) == (2, 2, [0.5, 1.0])
    assert repeated([at_repeat("b", r, solved=True) for r in (1, 3)], 1) is None

"""Which tasks and instances a MiniWoB++ run gets."""

from __future__ import annotations

import itertools

import pytest

from envs.errors import UsageError
from envs.miniwob.env import MiniWoBEnv
from envs.miniwob.oracles import oracle_tasks
from envs.miniwob.suite import TRAIN_SEED_START, MiniWoBSuite
from envs.miniwob.tasks import CORE, max_steps, pages, solved
from envs.suites import get_suite, make_env


def first(count: int, names: list[str] | None = None, seed: int = 0) -> list[tuple[str, int]]:
    return [(task.name, task.seed) for task in itertools.islice(MiniWoBSuite().instances(names, seed), count)]


def test_the_same_seed_gives_the_same_instances_everywhere() -> None:
    three = ["click-test", "enter-text", "use-slider"]
    assert first(4, three, seed=7) == [("use-slider", 66417), ("enter-text", 79486), ("click-test", 65799), ("use-slider", 57636)]
    assert first(20, three, seed=7)[:4] == first(4, three, seed=7)
    assert first(4, three, seed=8) != first(4, three, seed=7)


def test_tasks_take_turns_and_instances_do_not_repeat() -> None:
    suite = MiniWoBSuite()
    names = suite.task_names()
    drawn = first(3 * len(names))
    for turn in range(3):
        assert sorted(name for name, _ in drawn[turn * len(names) : (turn + 1) * len(names)]) == names
    assert len(set(drawn)) == len(drawn)
    assert all(0 <= seed < TRAIN_SEED_START for _, seed in drawn)


def test_asking_for_some_tasks_draws_the_same_instances_of_them() -> None:
    everything = [pair for pair in first(3 * len(MiniWoBSuite().task_names())) if pair[0] == "click-test"]
    assert first(3, ["click-test"]) == everything


def test_what_is_in_and_what_is_out() -> None:
    core, experts, everything = MiniWoBSuite(), MiniWoBSuite("experts"), MiniWoBSuite("all")
    assert core.task_names() == sorted(CORE)
    assert set(core.task_names()) < set(experts.task_names()) < set(everything.task_names())
    assert set(experts.task_names()) == set(oracle_tasks()) - set(core.excluded())
    assert set(everything.task_names()) | set(everything.excluded()) == set(pages())
    assert all(reason for reason in everything.excluded().values())
    assert all(1 <= max_steps(name) <= 30 for name in everything.task_names())


def test_a_page_that_never_ends_an_episode_is_no_task() -> None:
    """Nothing that an agent does there is ever worth anything: hover-shape has its reward commented out."""
    endless = [name for name in MiniWoBSuite("all").task_names() if "endEpisode" not in pages()[name].read_text(encoding="utf-8")]
    assert endless == []


def test_unknown_and_excluded_tasks_are_refused_at_once() -> None:
    with pytest.raises(UsageError, match="Did you mean 'click-test'"):
        MiniWoBSuite().instances(["click-tset"], 0)
    with pytest.raises(UsageError, match="moves with time"):
        MiniWoBSuite().instances(["chase-circle"], 0)
    with pytest.raises(UsageError, match="Did you mean 'miniwob"):
        get_suite("miniwbo")
    with pytest.raises(UsageError, match="sub-suite"):
        MiniWoBSuite("most")


def test_a_task_makes_its_own_environment() -> None:
    task = next(get_suite("miniwob").instances(None, 0))
    env = make_env(task, oracle=True)
    assert isinstance(env, MiniWoBEnv) and env.oracle_available
    env.close()


@pytest.mark.parametrize(
    ("task", "raw", "success"),
    [
        ("click-test", 1.0, True), ("click-test", 0.0, False), ("click-test", -1.0, False),
        ("click-checkboxes", 0.8, False), ("find-greatest", 0.1, False), ("odd-or-even", sum([0.2] * 5), True),
        ("circle-center", 0.1, True), ("circle-center", -1.0, False),
        ("use-colorwheel", 0.75, False), ("use-colorwheel", 0.97, True),
    ],
)  # fmt: skip
def test_partial_credit_is_success_only_where_the_score_is_a_distance(task: str, raw: float, success: bool) -> None:
    assert solved(task, raw) is success

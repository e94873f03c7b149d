import pytest
from pydantic import ValidationError
from scripted_endpoint import Answer, ScriptedEndpoint, critic, role_of
from traces import DIALOG, HOME, OPENED, one_click, screen, trace

from envs import actions as act
from retrospect.config import WordsConfig
from retrospect.credit import parse_credit, rules_credit
from retrospect.evidence import gather
from retrospect.reflect import Retrospector

THREE = [(HOME, act.Click(20, 15)), (OPENED, act.Click(120, 120)), (DIALOG, act.Click(60, 180))]


def rules(moves, final, ended_by):
    return rules_credit(gather(trace(moves, final, ended_by)))


def test_a_single_step_takes_all_the_blame() -> None:
    for ended_by in ("environment", "budget", "finished"):
        assert rules(THREE[:1], OPENED, ended_by) == (-1.0,)


def test_blame_falls_on_the_step_that_ended_it_and_fades_towards_the_beginning() -> None:
    credit = rules(THREE, screen(), "environment")
    assert credit[-1] == -1.0
    assert -0.25 <= credit[1] < credit[0] < 0


def test_steps_without_effect_repeats_and_detours_are_blamed() -> None:
    vain = rules([(HOME, act.Click(20, 200)), *THREE], screen(), "environment")
    assert vain[0] == -1.0 and vain[1] > -0.25
    loop = [(HOME, act.Click(1, 1)), (OPENED, act.Click(2, 2)), (HOME, act.Click(1, 1)), (OPENED, act.Click(3, 3))]
    assert rules(loop, DIALOG, "budget") == (-0.75, -0.75, -1.0, -0.5)


def test_running_out_of_budget_is_nobodys_fault_in_particular() -> None:
    assert rules(THREE, screen(), "budget") == (-0.5, -0.5, -0.5)


@pytest.mark.parametrize(
    ("reply", "credit"),
    [
        ('CREDIT: {"1": 0.5, "2": 0, "3": -1}', (0.5, 0.0, -1.0)),
        ('{"1": 7, "2": -7, "3": 1e400}', (1.0, -1.0, None)),
        ('first {"1": 1} then {"1": -0.5}', (-0.5, None, None)),
        ('{"1": true, "2": "good", "3": 0.25, "99": 1}', (None, None, 0.25)),
        ('{"1": NaN, "2": 0.5}', (None, 0.5, None)),
        (f'{{"1": -1{"0" * 400}, "2": 2{"0" * 400}}}', (-1.0, 1.0, None)),
    ],
)
def test_scores_are_clipped_and_gaps_filled_by_rule(reply: str, credit: tuple[float | None, ...]) -> None:
    evidence = gather(trace(THREE, screen(), "environment"))
    by_rule = rules_credit(evidence)
    assert parse_credit(reply, evidence) == tuple(r if c is None else c for c, r in zip(credit, by_rule, strict=True))


@pytest.mark.parametrize("reply", ["", "no numbers", "{", "{" * 30_000, "[1, 2, 3]", '{"steps": {"first": 1}}', '{"4": 1}'])
def test_replies_without_scores_give_none(reply: str) -> None:
    assert parse_credit(reply, gather(trace(THREE, screen(), "environment"))) is None


def reflect(server: ScriptedEndpoint, **more):
    config = WordsConfig(
        **{"method": "textgrad", "engine": "openai:m", "base_url": server.url, "backoff_s": 0.001, "max_retries": 1, **more}
    )
    return Retrospector(config).reflect(one_click(1, 2))


def test_the_critique_that_wrote_the_words_also_scores_the_steps() -> None:
    with ScriptedEndpoint(critic("new", critique='Step 1 was fine.\nCREDIT: {"1": 0.5}')) as server:
        assert reflect(server, credit="critique").credit == (0.5,)
    assert len(server.requests) == 3


def test_a_judge_is_asked_separately_and_may_fail() -> None:
    with ScriptedEndpoint(critic("new")) as server:
        assert reflect(server, credit="judge").credit == (-0.5,)
        only_judge = reflect(server, credit="judge", method="none")
    assert only_judge.credit == (-0.5,) and only_judge.guidance == ""
    assert [role_of(request) for request in server.requests] == ["loss", "gradient", "update", "judge", "judge"]

    good = critic("new")
    with ScriptedEndpoint(lambda r, n: Answer(status=503) if role_of(r) == "judge" else good(r, n)) as server:
        reflection = reflect(server, credit="judge")
    assert reflection.guidance == "new" and reflection.credit == (-1.0,) and "HTTP 503" in reflection.error

    with ScriptedEndpoint(lambda r, n: Answer("great job!") if role_of(r) == "judge" else good(r, n)) as server:
        reflection = reflect(server, credit="judge")
    assert reflection.credit == (-1.0,) and "no usable credit" in reflection.error


def test_the_rules_are_no_judge() -> None:
    with pytest.raises(ValidationError, match="a judge is a model"):
        WordsConfig(method="textgrad", credit="judge")
    assert WordsConfig(method="textgrad", credit="judge", engine="self").credit == "judge"


def test_without_a_model_the_rules_give_the_credit_and_sparse_ignores_everybody() -> None:
    attempt = trace(THREE, screen(), "environment")
    assert Retrospector(WordsConfig(method="textgrad", credit="critique")).reflect(attempt).credit == rules_credit(gather(attempt))
    assert Retrospector(WordsConfig(method="textgrad")).reflect(attempt).credit == (-1.0, -1.0, -1.0)


def test_where_no_critique_is_written_a_judge_scores() -> None:
    with ScriptedEndpoint(critic("new")) as server:
        config = WordsConfig(method="textgrad", engine="openai:m", base_url=server.url, credit="critique")
        silent = Retrospector(config).reflect(one_click(1, 2, guidance="old"), words=False)
        remembered = Retrospector(config.model_copy(update={"method": "reflexion"})).reflect(one_click(1, 2))
    assert silent.guidance == "old" and silent.credit == remembered.credit == (-0.5,)
    assert silent.error == remembered.error == "" and remembered.guidance == "Attempt 1: new"
    assert [role_of(request) for request in server.requests] == ["judge", "memory", "judge"]


def test_an_axis_that_is_switched_off_still_remembers_what_failed() -> None:
    retrospector = Retrospector(WordsConfig(method="textgrad"))
    assert retrospector.reflect(one_click(1, 2), words=False).guidance == ""
    assert "click(1, 2)" in retrospector.reflect(one_click(3, 4)).guidance

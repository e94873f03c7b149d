import json
import sys
import threading
from types import ModuleType

import pytest
from pydantic import ValidationError
from scripted_endpoint import Answer, ScriptedEndpoint, critic, role_of
from traces import HOME, OPENED, TASK, one_click, step, trace

from envs import actions as act
from envs.errors import StoreError, UsageError
from retrospect.config import WordsConfig
from retrospect.guidance import MAX_ATTEMPTS, Tried, render_tried
from retrospect.methods import Revision
from retrospect.reflect import Retrospector, distance
from retrospect.trace import Trace

RULES = WordsConfig(method="textgrad")


def fail_at(*points: tuple[int, int], config: WordsConfig = RULES):
    """One session that clicks in vain at each point in turn; the last reflection."""
    retrospector, guidance = Retrospector(config), ""
    for attempt, (x, y) in enumerate(points, start=1):
        reflection = retrospector.reflect(one_click(x, y, guidance=guidance, attempt=attempt))
        guidance = reflection.guidance
    return retrospector, reflection


def tried(*points: tuple[int, int]) -> list[list[Tried]]:
    return [[Tried("thought 1", f"click({x}, {y})")] for x, y in points]


def test_the_rules_list_what_was_tried_newest_last() -> None:
    _, reflection = fail_at((1, 2), (3, 4))
    assert reflection.guidance == "Failed before:\n- thought 1: click(1, 2)\n- thought 1: click(3, 4)\nDo otherwise."
    assert reflection.previous == "Failed before:\n- thought 1: click(1, 2)\nDo otherwise."
    assert reflection.error == "" and reflection.requests == 0


def test_the_guidance_is_exactly_the_form_the_bundled_policy_reads() -> None:
    points = [(i, i) for i in range(MAX_ATTEMPTS + 3)]
    assert fail_at(*points)[1].guidance == render_tried(tried(*points))


def test_a_step_that_changed_nothing_says_so_and_thoughts_come_without_markup() -> None:
    steps = [
        step(
            1,
            HOME,
            act.Click(20, 200),
            thought="I `click` <|im_end|> it",
            text="click(start_box='<|box_start|>(20,200)<|box_end|>')",
        ),
        step(2, HOME, act.Click(20, 15), text="click(start_box='(20,15)')"),
    ]
    reflection = Retrospector(RULES).reflect(Trace(TASK, steps, {"screenshot": OPENED}, 0.0, "environment"))
    assert reflection.guidance == (
        "Failed before:\n- I 'click' it: click(start_box='(20,200)') (nothing changed); click(start_box='(20,15)')\nDo otherwise."
    )


def test_reflexion_remembers_three_attempts_and_rewrites_none() -> None:
    points = [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert fail_at(*points, config=WordsConfig(method="reflexion"))[1].guidance == render_tried(tried(*points[1:]))

    def script(request, number):
        assert role_of(request) == "memory"
        return Answer(f"I clicked wrongly,\nthe {number}th time.") if number != 4 else Answer(status=400)

    with ScriptedEndpoint(script) as server:
        config = WordsConfig(method="reflexion", engine="openai:m", base_url=server.url, images="never", max_retries=0)
        retrospector, reflection = fail_at((1, 1), (2, 2), (3, 3), (4, 4), config=config)
        assert "HTTP 400" in reflection.error and reflection.guidance == reflection.previous
        again = retrospector.reflect(one_click(5, 5, guidance=reflection.guidance, attempt=5))
    assert again.guidance.split("\n") == [f"Attempt {i}: I clicked wrongly, the {i}th time." for i in (2, 3, 5)]


def test_no_words_leave_the_guidance_alone() -> None:
    reflection = Retrospector(WordsConfig(method="none")).reflect(one_click(1, 2, guidance="given"))
    assert reflection.guidance == "given" and reflection.distance == 0.0 and reflection.credit == (-1.0,)


@pytest.mark.parametrize("method", ["textgrad", "reflexion"])
def test_a_resumed_session_goes_on_as_if_it_had_never_stopped(method: str) -> None:
    def script(request, number):
        return critic(f"words {number}")(request, number)

    for engine in ("rules", "openai:m"):
        with ScriptedEndpoint(script) as server:
            config = WordsConfig(method=method, engine=engine, base_url=server.url)
            first, reflection = fail_at((1, 2), (3, 4), config=config)
            resumed = Retrospector(config)
            resumed.load_state(json.loads(json.dumps(first.state())))
            server.requests.clear()
            going_on = first.reflect(one_click(5, 6, guidance=reflection.guidance, attempt=3))
            server.requests.clear()
            coming_back = resumed.reflect(one_click(5, 6, guidance=reflection.guidance, attempt=3))
        assert going_on.guidance == coming_back.guidance
        assert going_on.evidence == coming_back.evidence
        assert first.state() == resumed.state()


@pytest.mark.parametrize(
    "state", [{}, {"attempts": 3, "memory": []}, {"attempts": [[["a"]]], "memory": []}, {"attempts": [], "memory": [[1]]}]
)
def test_a_damaged_state_is_refused_and_changes_nothing(state: dict) -> None:
    retrospector, _ = fail_at((1, 2))
    before = retrospector.state()
    with pytest.raises(StoreError):
        retrospector.load_state(state)
    assert retrospector.state() == before


def test_many_sessions_in_threads_get_the_same_as_one_after_the_other() -> None:
    points = [[(i, j) for j in range(3)] for i in range(12)]
    expected = [fail_at(*session)[1].guidance for session in points]
    results: dict[int, str] = {}

    def run(i: int) -> None:
        results[i] = fail_at(*points[i])[1].guidance

    threads = [threading.Thread(target=run, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert [results[i] for i in range(12)] == expected


def test_the_record_is_json_and_complete() -> None:
    _, reflection = fail_at((1, 2), config=WordsConfig(method="textgrad", credit="critique"))
    record = json.loads(json.dumps(reflection.to_json()))
    assert record["credit"] == [-1.0] and record["guidance"] == reflection.guidance and record["error"] == ""
    assert record["evidence"]["findings"][0]["kind"] == "ended"


def test_the_distance_of_two_guidances() -> None:
    assert distance("", "") == distance("a b c", "a b  c") == 0.0
    assert distance("", "a b") == distance("a b", "c d") == 1.0
    assert distance("a b c d", "a x c d") == pytest.approx((1 / 4) ** 2)
    assert distance("a b c d", "a d") == distance("a d", "a b c d") == pytest.approx((2 / 4) ** 2)
    assert distance("k i t t e n", "s i t t i n g") == pytest.approx((3 / 7) ** 2)


def test_a_long_attempt_of_a_large_screen_stays_within_what_guidance_may_list() -> None:
    attempt = trace([(HOME, act.Click(i, i)) for i in range(40)], OPENED, "budget")
    retrospector = Retrospector(RULES)
    guidance = retrospector.reflect(attempt).guidance
    assert guidance.split("\n")[1].startswith("- ...; thought 35: click(34, 34)")
    assert len(retrospector.state()["attempts"][0]) == 7


@pytest.mark.parametrize("bad", [{"engine": "gpt"}, {"engine": "openai:"}, {"method": "magic"}, {"max_chars": 1}, {"typo": 1}])
def test_unknown_options_are_refused(bad: dict) -> None:
    with pytest.raises(ValidationError):
        WordsConfig(**bad)


@pytest.mark.parametrize("made", [None, Revision(None), Revision("go on", critique=5)])
def test_a_method_of_ones_own_that_gives_no_text_is_refused_by_name(monkeypatch, made) -> None:
    own = ModuleType("own")
    own.method = lambda failure: made
    monkeypatch.setitem(sys.modules, "own", own)
    with pytest.raises(UsageError, match=r"own:method returned a (NoneType for guidance|int for critique)"):
        Retrospector(WordsConfig(method="own:method")).reflect(one_click(1, 2))

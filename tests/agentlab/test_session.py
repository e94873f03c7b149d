"""Algorithm 1 on a small world: what is learned when, what the machinery may and may not do, and how a session is taken up."""

import json
import math
import os
from threading import Event

import pytest
from small_world import DoorEnv, DoorPolicy, DoorSession, door

from agentlab.disk.record import load_trace
from agentlab.disk.store import RunStore
from agentlab.run.resolve import resolve
from agentlab.run.session import Interrupted, Session, derive_seed
from envs import actions as act
from envs.errors import InfrastructureError
from envs.slot import EnvSlot
from policies.base import Update
from retrospect.config import WordsConfig
from retrospect.reflect import Retrospector


@pytest.fixture(autouse=True)
def _quiet_machinery():
    DoorEnv.faults = []
    DoorEnv.opened = DoorEnv.closed = 0


class WanderingPolicy(DoorPolicy):
    """Takes no notice of the guidance, which is not its kind."""

    def open(self, task, *, seed, adapt=None):
        session = super().open(task, seed=seed)
        begin = session.begin
        session.begin = lambda instruction, *, guidance="", attempt=1: begin(instruction, attempt=attempt)
        return session


class Lab:
    """One run directory and the means to run sessions in it."""

    def __init__(self, folder, **settings):
        self.config = resolve({"attempts": 4, "adapt": {"preset": "rosa"}, **settings})
        self.store = RunStore.open(folder, self.config.to_json())
        self.stop = Event()

    def run(self, task, policy=None, on_row=lambda row: None, words=None):
        envs = EnvSlot({})
        session = Session(
            task,
            config=self.config,
            policy=policy or DoorPolicy(),
            words=words,
            envs=envs,
            store=self.store.session(task.id),
            stop=self.stop,
            memory=lambda: {"rss": 1.0},
        )
        try:
            session.run(on_row)
        finally:
            envs.close()
            assert DoorEnv.opened == DoorEnv.closed
        return self.store.rows()

    def folder(self, task, attempt):
        return self.store.session(task.id).attempt_folder(attempt)


@pytest.fixture
def lab(tmp_path):
    lab = Lab(tmp_path / "run")
    yield lab
    lab.store.close()


def test_attempts_until_solved(lab):
    policy, task = DoorPolicy(), door(2)
    rows = lab.run(task, policy)
    assert [(r.attempt, r.success, r.reward, r.session_over) for r in rows] == [
        (1, False, -1, False),
        (2, False, -1, False),
        (3, True, 1, True),
    ]
    assert policy.sessions[0].rewards == [[-1.0, -1.0], [-1.0, -1.0]]  # one r_i per step, only after failures
    assert policy.sessions[0].closed and policy.sessions[0].discarded == 0
    assert [bool(r.update) for r in rows] == [True, True, False]
    assert rows[0].steps == 2 and rows[0].tokens == 3 and rows[0].ended_by == "finished"
    assert json.loads((lab.folder(task, 1) / "update.json").read_text())["accepted"] is True


def test_the_last_attempt_teaches_nothing(lab):
    policy = DoorPolicy()
    rows = lab.run(door(7), policy)
    assert [r.attempt for r in rows] == [1, 2, 3, 4]
    assert rows[-1].session_over and not rows[-1].success and len(policy.sessions[0].rewards) == 3


def test_attempt_files_read_back_as_the_trace(lab):
    task = door(1)
    lab.run(task)
    trace = load_trace(lab.folder(task, 2))
    assert (trace.instruction, trace.attempt, trace.score, trace.ended_by) == ("Open door 1", 2, 1.0, "finished")
    assert [s.text for s in trace.steps] == ["door 1", "done"]
    assert trace.steps[0].observation["screenshot"].sum() == 0
    assert (trace.final["screenshot"][:, 10:20] == 255).all() and trace.final["screenshot"][:, 20:].sum() == 0
    assert sorted(p.name for p in (lab.folder(task, 2) / "screens").iterdir()) == ["000.webp", "001.webp"]  # 002 is as 001


@pytest.mark.parametrize("where", ["start", "execute", "observe", "grade"])
def test_broken_machinery_is_retried_and_never_a_reward(lab, where):
    DoorEnv.faults = ["", where, where]  # attempt 2 breaks twice, then goes through
    policy, task = DoorPolicy(), door(1)
    rows = lab.run(task, policy)
    assert [(r.attempt, r.outcome, r.success) for r in rows] == [(1, "graded", False), (2, "graded", True)]
    assert [f.component for f in rows[1].infrastructure] == ["door", "door"]
    assert len(policy.sessions[0].rewards) == 1 and policy.sessions[0].discarded == 2
    assert DoorEnv.opened == 3  # a new environment after each failure
    voids = sorted(p.name for p in lab.folder(task, 2).glob("void_*"))
    assert voids == ["void_01", "void_02"] and (lab.folder(task, 2) / "void_01/events.jsonl").exists()


def test_machinery_that_stays_broken_ends_the_session_as_such(lab):
    DoorEnv.faults = ["", "grade", "start", "execute"]
    policy = DoorPolicy()
    rows = lab.run(door(3), policy)
    last = rows[-1]
    assert [r.outcome for r in rows] == ["graded", "infrastructure"]
    assert (last.reward, last.score, last.success, last.session_over) == (None, None, False, True)
    assert len(last.infrastructure) == 3 and len(policy.sessions[0].rewards) == 1
    assert lab.run(door(3), policy) == rows  # over: not made again


@pytest.fixture
def losses(monkeypatch):
    """How often the server is gone on which updates are computed, from the next one on: two times."""
    adapt, left = DoorSession.adapt, [2]

    def lost(self, rewards, *, refined=None):
        if left[0]:
            left[0] -= 1
            raise InfrastructureError("The server is gone.", component="server")
        return adapt(self, rewards, refined=refined)

    monkeypatch.setattr(DoorSession, "adapt", lost)
    return left


def test_machinery_that_breaks_while_learning_voids_the_attempt_and_teaches_nothing(lab, losses):
    """Where updates are computed on a server it may be gone: the attempt is made again, with the adapter that it had."""
    policy, task = DoorPolicy(), door(1)
    rows = lab.run(task, policy)
    assert [(r.attempt, r.outcome, r.success) for r in rows] == [(1, "graded", False), (2, "graded", True)]
    assert [f.component for f in rows[0].infrastructure] == ["server", "server"]
    assert len(policy.sessions[0].rewards) == 1 and policy.sessions[0].discarded == 2
    losses[0] = 99
    assert [r.outcome for r in lab.run(door(2))][-1] == "infrastructure"


def test_words_do_not_remember_an_attempt_that_turned_out_void(tmp_path, losses):
    lab, task = Lab(tmp_path / "run", adapt={"preset": "rosa2"}, attempts=3), door(7)
    rows = lab.run(task, WanderingPolicy(), words=Retrospector(lab.config.adapt.words))
    lab.store.close()
    assert [r.outcome for r in rows] == ["graded"] * 3 and len(rows[0].infrastructure) == 2
    words = [json.loads((lab.folder(task, attempt) / "words.json").read_text()) for attempt in (1, 2)]
    assert [len(one["state"]["attempts"]) for one in words] == [1, 2]
    kinds = [finding["kind"] for finding in words[0]["reflection"]["evidence"]["findings"]]
    assert "tried_before" not in kinds  # nothing was, that counts


def test_an_impossible_update_is_recorded_and_the_attempts_go_on(lab):
    rows = lab.run(door(3), DoorPolicy(fails=["adapt"]))
    assert [r.attempt for r in rows] == [1, 2, 3, 4]
    assert rows[0].update.accepted is False and "NaN" in rows[0].update.error


def test_a_critic_that_is_down_costs_no_attempt_and_the_record_says_so(tmp_path):
    words = WordsConfig(method="textgrad", engine="openai:m", base_url="http://127.0.0.1:9/v1", max_retries=1, backoff_s=0.0)
    lab = Lab(tmp_path / "run", adapt={"preset": "rosa2", "words": words.model_dump()}, attempts=3)
    policy = DoorPolicy()
    rows = lab.run(door(7), policy, words=Retrospector(words))
    lab.store.close()
    assert [(r.outcome, r.success) for r in rows] == [("graded", False)] * 3
    assert all("failed 2 times" in r.words.error and r.words.requests == 2 for r in rows[:2])
    assert [r.guidance_hash for r in rows] == ["", "", ""]  # no new guidance
    assert policy.sessions[0].rewards == [[-1.0, -1.0]] * 2  # and the weights learned all the same


def stop_after(lab, attempts):
    def on_row(row):
        if row.attempt == attempts:
            lab.stop.set()

    return on_row


def test_a_session_goes_on_at_the_next_attempt_with_its_adapter(lab):
    task = door(3)
    with pytest.raises(Interrupted):
        lab.run(task, on_row=stop_after(lab, 2))
    assert (lab.folder(task, 3) / "events.jsonl").exists()  # the attempt in flight
    lab.stop.clear()
    policy = DoorPolicy()
    rows = lab.run(task, policy)
    assert [(r.attempt, r.success) for r in rows] == [(1, False), (2, False), (3, False), (4, True)]
    assert len(policy.sessions[0].rewards) == 1  # only attempt 3 was lived by this policy session


def test_the_adapter_of_an_earlier_attempt_is_still_in_force_after_a_switch_to_words(tmp_path):
    adapt = {"preset": "switch", "switch_at": 2, "switch_first": "weights"}
    lab, task = Lab(tmp_path / "run", adapt=adapt), door(3)
    with pytest.raises(Interrupted):
        lab.run(task, on_row=stop_after(lab, 2))
    lab.stop.clear()
    policy = DoorPolicy()
    rows = lab.run(task, policy)
    lab.store.close()
    assert [r.adapter for r in rows] == [True, False, False, False]
    assert policy.sessions[0].theta == 1  # what attempt 1 taught


def test_a_resumed_session_that_must_not_repeat_is_told_what_it_tried(tmp_path):
    lab, task = Lab(tmp_path / "run", adapt={"preset": "no-repeat"}), door(7)
    with pytest.raises(Interrupted):
        lab.run(task, on_row=stop_after(lab, 2))
    lab.stop.clear()
    policy = DoorPolicy()
    assert len(lab.run(task, policy)) == 4
    lab.store.close()
    tried = [(act.Click(5.0, 5.0),), (act.Finished(),)]
    assert policy.sessions[0].recalled == [tried, tried]


def test_a_session_whose_adapter_cannot_be_loaded_starts_again(lab):
    task = door(2)
    with pytest.raises(Interrupted):
        lab.run(task, on_row=stop_after(lab, 1))
    lab.stop.clear()
    policy = DoorPolicy(fails=["load"])
    rows = lab.run(task, policy)
    assert [r.attempt for r in rows] == [1, 2, 3] and rows[-1].success
    assert policy.sessions[0].closed
    assert (lab.folder(task, 1).parent / "set_aside_01/attempt_01/result.json").exists()


@pytest.mark.parametrize("damage", ["torn", "missing", "pipe", "not utf-8", "another object", "half a state"])
def test_a_damaged_file_of_the_newest_attempt_costs_that_attempt_only_and_is_said(tmp_path, damage):
    words = WordsConfig(method="textgrad", engine="rules")
    lab = Lab(tmp_path / "run", adapt={"preset": "textgrad", "words": words.model_dump()}, attempts=4)
    lab.store.say = (said := []).append
    task, policy = door(7), WanderingPolicy()
    with pytest.raises(Interrupted):
        lab.run(task, policy, on_row=stop_after(lab, 3), words=Retrospector(words))
    lab.stop.clear()
    kept = (lab.folder(task, 2) / "result.json").read_bytes()
    path = lab.folder(task, 3) / "words.json"
    whole = path.read_bytes()
    path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    elif damage != "missing":
        contents = {
            "torn": whole[:40],
            "not utf-8": whole[:40] + b"\xff",
            "another object": b"[]",
            "half a state": b'{"state": {"memory": 3}}',
        }
        path.write_bytes(contents[damage])
    rows = lab.run(task, policy, words=Retrospector(words))
    lab.store.close()
    assert [r.attempt for r in rows] == [1, 2, 3, 4]
    assert (lab.folder(task, 2) / "result.json").read_bytes() == kept  # not made again
    aside = lab.folder(task, 1).parent / "set_aside_01"
    assert sorted(p.name for p in aside.iterdir()) == ["attempt_03", "attempt_04", "why.txt"]
    assert len(said) == 1 and "words.json" in said[0] and str(aside) in said[0]


@pytest.mark.parametrize("damage", ["shorter", "missing"])
def test_guidance_that_is_not_what_was_written_is_never_gone_on_from(tmp_path, damage):
    words = WordsConfig(method="textgrad", engine="rules")
    lab = Lab(tmp_path / "run", adapt={"preset": "textgrad", "words": words.model_dump()}, attempts=3)
    lab.store.say = (said := []).append
    with pytest.raises(Interrupted):
        lab.run(door(7), WanderingPolicy(), on_row=stop_after(lab, 1), words=Retrospector(words))
    lab.stop.clear()
    path = lab.folder(door(7), 1) / "guidance.txt"
    whole = path.read_text()
    path.unlink()
    if damage == "shorter":
        path.write_text(whole[:-5])
    lab.run(door(7), WanderingPolicy(), words=Retrospector(words))
    lab.store.close()
    assert len(said) == 1 and "guidance.txt" in said[0]
    assert (lab.folder(door(7), 1) / "guidance.txt").read_text() == whole  # made again, from the same seed


def test_numbers_that_are_not_finite_are_null_in_every_file(lab):
    class Refusing(DoorPolicy):
        def open(self, task, *, seed, adapt=None):
            session = super().open(task, seed=seed, adapt=adapt)
            session.adapt = lambda credit, refined=None: Update(
                "rosa", False, 0.1, {"residual_after": math.nan, "norm": [math.inf, 1.0]}
            )
            return session

    lab.run(door(3), Refusing())

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    update = json.loads((lab.folder(door(3), 1) / "update.json").read_text(), parse_constant=refuse)
    assert update["residual_after"] is None and update["norm"] == [None, 1.0]
    for line in (lab.store.folder / "results.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_stopping_during_a_machinery_failure_is_not_counted_as_one(lab):
    DoorEnv.faults = ["execute"]
    lab.stop.set()
    with pytest.raises(Interrupted):
        lab.run(door(1))
    assert lab.store.rows() == []


def test_seeds_depend_on_run_and_task_only():
    assert derive_seed(0, "a_1") == derive_seed(0, "a_1")
    assert len({derive_seed(s, t) for s in range(10) for t in ("a_1", "a_2", "b_1")}) == 30


# -- adapters on disk --------------------------------------------------------------------------------------------------------------
KEPT = {"all": [1, 2, 3], "last": [3], "none": []}
"""Of a session of four attempts, three of which were learned from, once it is over."""


def adapters(lab, task):
    return sorted(int(path.parents[1].name[-2:]) for path in lab.folder(task, 1).parent.glob("attempt_*/adapter/adapter.json"))


@pytest.mark.parametrize("keep", KEPT)
def test_adapters_that_nobody_needs_are_removed(tmp_path, keep):
    lab, task, seen = Lab(tmp_path / "run", keep_adapters=keep), door(3), []
    rows = lab.run(task, on_row=lambda row: seen.append(adapters(lab, task)))
    lab.store.close()
    assert [r.adapter for r in rows] == [True, True, True, False]
    expected = [1], [1, 2] if keep == "all" else [2], [1, 2, 3] if keep == "all" else [3], KEPT[keep]
    assert tuple(seen) == expected


@pytest.mark.parametrize("keep", KEPT)
@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("pruned", [False, True])
def test_a_session_killed_at_any_point_goes_on_from_the_adapter_in_force(tmp_path, monkeypatch, keep, after, pruned):
    """Killed before or after the older adapters are removed."""
    lab, task = Lab(tmp_path / "run", keep_adapters=keep), door(3)

    class Killed(BaseException):
        pass

    real = type(lab.store.session("x")).prune_adapters

    def prune(session, how):
        if pruned:
            real(session, how)
        if len(session.rows()) == after:
            raise Killed

    monkeypatch.setattr("agentlab.disk.store.SessionStore.prune_adapters", prune)
    with pytest.raises(Killed):
        lab.run(task)
    monkeypatch.undo()
    policy = DoorPolicy()
    rows = lab.run(task, policy)
    assert [(r.attempt, r.success) for r in rows] == [(1, False), (2, False), (3, False), (4, True)]
    assert len(policy.sessions[0].rewards) == 3 - after  # nothing was learned twice
    assert adapters(lab, task) == KEPT[keep]
    lab.store.close()


def test_what_a_killed_run_left_of_a_session_that_was_over_is_removed_when_it_is_continued(tmp_path):
    lab, task = Lab(tmp_path / "run", keep_adapters="all"), door(3)
    lab.run(task)
    session = lab.store.session(task.id)
    session.prune_adapters("last")
    assert adapters(lab, task) == [3]
    session.prune_adapters("none")
    assert adapters(lab, task) == []
    session.prune_adapters("none")
    lab.store.close()


def test_a_session_that_the_machinery_ended_keeps_its_newest_adapter_and_can_be_retried(tmp_path):
    lab, task = Lab(tmp_path / "run", keep_adapters="none"), door(2)
    DoorEnv.faults = ["", "", "start", "start", "start"]
    assert [r.outcome for r in lab.run(task)] == ["graded", "graded", "infrastructure"]
    assert adapters(lab, task) == [2]
    lab.store.session(task.id).set_aside(3)  # --retry-infra
    policy = DoorPolicy()
    assert [r.success for r in lab.run(task, policy)] == [False, False, True] and policy.sessions[0].theta == 2
    assert adapters(lab, task) == []
    lab.store.close()

"""Episodes, suites and runs of OSWorld without Docker: a stand-in of the guest, and a grader that is told what to say."""

import io
import json
import types

import pytest
from rich.console import Console
from standin import SIZE, standin

from agentlab.cli.dry_run import show, workload
from agentlab.results.metrics import summarize
from agentlab.run.parts import plan, prepare
from agentlab.run.resolve import resolve
from agentlab.run.runner import Runner
from envs import actions as act
from envs.errors import InfrastructureError, SetupError, UsageError
from envs.osworld import machinery, needs
from envs.osworld.env import OSWorldEnv
from envs.osworld.machinery import make_provider, shared_options
from envs.osworld.needs import lacking
from envs.osworld.suite import UPSTREAM, OSWorldSuite
from envs.suites import default_options, get_suite, remarks, sub_suite

CLICK = [{"kind": "click", "x": 5, "y": 6}]


def job(name: str, **more: object) -> dict:
    evaluator = {"func": "exact_match", "result": {"type": "vm_command_line", "command": "x"}}
    return {
        "id": name,
        "instruction": f"Do {name}.",
        "config": [],
        "evaluator": evaluator,
        "oracle": [CLICK, [{"kind": "finished"}]],
    } | more


JOBS = {
    "os": [job("plain"), job("impossible", evaluator={"func": "infeasible"}, oracle=[[{"kind": "fail"}]])],
    "calc": [job("other"), job("code", evaluator={"func": "check_python_file_by_test_suite"}, oracle=[])],
}


@pytest.fixture
def folder(tmp_path):
    for domain, listed in JOBS.items():
        (tmp_path / "tasks" / domain).mkdir(parents=True)
        for one in listed:
            (tmp_path / "tasks" / domain / f"{one['id']}.json").write_text(json.dumps(one))
    return tmp_path / "tasks"


class ToldGrader:
    """Scores what it is told by the task's id; an exception is raised instead."""

    def __init__(self, processes: int = 1, **_: object) -> None:
        self.scores: dict[str, list[float | Exception]] = {}
        self.calls: list[tuple[str, str]] = []

    def prepare(self, task, guest) -> None:
        self.calls.append(("prepare", task["id"]))

    def score(self, task, guest, last) -> float:
        self.calls.append(("score", type(last).__name__))
        said = self.scores.get(task["id"], [])
        score = said.pop(0) if said else float(isinstance(last, act.Fail) == (task["evaluator"]["func"] == "infeasible"))
        if isinstance(score, Exception):
            raise score
        return score

    def forget(self, guest) -> None:
        self.calls.append(("forget", ""))

    def close(self) -> None:
        self.calls.append(("close", ""))


@pytest.fixture
def guest():
    with standin() as made:
        yield made


@pytest.fixture
def make(guest, folder):
    """An environment on the stand-in, and its grader."""
    made = []

    def build(**options: object) -> tuple[OSWorldEnv, ToldGrader]:
        grader = ToldGrader()
        env = OSWorldEnv(provider=f"address:{guest.port}", grader=grader, screen=SIZE, timing="brisk", **options)
        made.append(env)
        return env, grader

    yield build
    for env in made:
        env.close()
        env.close()


def start(env, folder, name, max_steps=3):
    spec = OSWorldSuite(str(folder)).spec(name)
    return env.reset(options={"task": type(spec)(**{**vars(spec), "max_steps": max_steps})})


# -- episodes ------------------------------------------------------------------------------------------------------------------------
def test_an_episode_is_set_up_acted_and_graded_in_this_order(make, guest, folder):
    env, grader = make()
    observation, info = start(env, folder, "os/plain")
    assert info["instruction"] == "Do plain." and observation["screenshot"].shape == (SIZE[1], SIZE[0], 3)
    env.step(act.Click(5, 6))
    assert guest.operations[-1] == {"op": "click", "button": 1, "count": 1}
    _, reward, terminated, _, info = env.step(act.Finished())
    assert (reward, terminated, info["score"], info["ended_by"]) == (1.0, True, 1.0, "finished")
    assert grader.calls == [("prepare", "plain"), ("score", "Finished")]
    start(env, folder, "os/plain")
    assert grader.calls[2:] == [("forget", ""), ("prepare", "plain")]


def test_a_grader_that_fails_is_no_reward(make, folder):
    env, grader = make()
    grader.scores["plain"] = [InfrastructureError("It hung.", component="grader")]
    start(env, folder, "os/plain")
    with pytest.raises(InfrastructureError, match="It hung"):
        env.step(act.Finished())
    with pytest.raises(UsageError):
        env.step(act.Finished())


@pytest.mark.parametrize(
    ("said", "as_usual", "last_step_fail"),
    [
        (act.Click(1, 1), "Click", "Fail"),
        (act.Wait(), "Wait", "Wait"),
        (act.Finished(), "Finished", "Finished"),
        (act.Fail(), "Fail", "Fail"),
    ],
)
def test_the_last_reply_counts_as_the_official_runner_counts_it_only_if_asked(make, guest, folder, said, as_usual, last_step_fail):
    for option, expected in ((False, as_usual), (True, last_step_fail)):
        env, grader = make(last_step_fail=option)
        start(env, folder, "os/plain", max_steps=2)
        env.step(act.Click(3, 3))
        before = len(guest.operations)
        assert env.step(said)[4]["score"] is not None
        assert grader.calls[-1] == ("score", expected)
        executed = len(guest.operations) > before
        assert executed == (isinstance(said, act.Click) and not option), "a reply taken for FAIL is not executed"
        env.close()


def test_the_recorded_solution_is_played_step_by_step(make, folder):
    env, _ = make(oracle=True)
    start(env, folder, "os/plain")
    assert env.oracle()[1] == (act.Click(5, 6),)
    env.step(env.oracle()[1])
    assert env.oracle()[1] == (act.Finished(),)
    with pytest.raises(UsageError, match="no recorded solution"):
        env.reset(options={"task": get_suite(f"osworld:{write_job(folder, job('none', oracle=[]))}").spec("os/none")})


def test_tasks_that_run_the_agents_code_on_the_host_are_refused_unless_asked_for(make, folder):
    suite = OSWorldSuite(str(folder))
    assert "calc/code" not in suite.task_names() and "outside of the desktop" in suite.excluded()["calc/code"]
    env, _ = make()
    with pytest.raises(UsageError, match="run_agent_code=true"):
        start(env, folder, "calc/code")
    willing, _ = make(run_agent_code=True)
    env.close()
    start(willing, folder, "calc/code")


def test_options_that_cannot_be_are_refused():
    with pytest.raises(UsageError, match="Did you mean 'brisk'"):
        OSWorldEnv(provider="address:1", timing="brsk")
    with pytest.raises(UsageError, match="Did you mean 'light'"):
        make_provider("ligth")
    with pytest.raises(UsageError, match="Did you mean 'official'"):
        list(lacking("light", {"provider": "oficial"}))


# -- suites --------------------------------------------------------------------------------------------------------------------------
def write_job(folder, one: dict):
    path = folder / "os" / f"{one['id']}.json"
    path.write_text(json.dumps(one))
    return path


def test_suites_by_name_folder_list_and_file(folder):
    assert OSWorldSuite(str(folder)).task_names() == ["calc/other", "os/impossible", "os/plain"]
    listed = folder / "mine.json"
    listed.write_text(json.dumps({"os": ["plain"]}))
    assert OSWorldSuite(str(listed)).task_names() == ["os/plain"]
    assert OSWorldSuite(str(folder / "calc" / "other.json")).task_names() == ["calc/other"]
    assert sub_suite("osworld", "light") == "osworld-light" and sub_suite("osworld", "x/y.json") == "osworld:x/y.json"
    specs = list(OSWorldSuite(str(folder)).instances(None, seed=3))
    assert {spec.name: spec.feasible for spec in specs} == {"calc/other": True, "os/impossible": False, "os/plain": True}
    assert specs == list(OSWorldSuite(str(folder)).instances(None, seed=3)) and {spec.domain for spec in specs} == {"calc", "os"}
    assert [s.name for s in OSWorldSuite(str(folder)).instances(["plain", "os/plain"], 0)] == ["os/plain"] * 2
    with pytest.raises(UsageError, match="Did you mean 'os/plain'"):
        list(OSWorldSuite(str(folder)).instances(["os/plane"], 0))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not an OSWorld task"),
        ("[]", "no JSON object"),
        (json.dumps(job("x", config=[{"type": "explode", "parameters": {}}])), "no step 'explode'"),
        (json.dumps(job("../x")), "not an id"),
        (json.dumps(job("x", oracle=[[{"kind": "clik"}]])), "clik"),
        (json.dumps({"id": "x", "instruction": "y"}), "evaluator"),
    ],
)
def test_files_that_are_no_tasks_are_refused_in_one_line(folder, text, reason):
    (folder / "os" / "plain.json").write_text(text)
    with pytest.raises(UsageError, match=reason):
        OSWorldSuite(str(folder)).task_names()


def test_a_list_that_names_what_is_not_there_is_refused(folder):
    (folder / "mine.json").write_text(json.dumps({"os": ["plain", "gone"]}))
    with pytest.raises(UsageError, match="1 tasks that are not there"):
        OSWorldSuite(str(folder / "mine.json")).task_names()
    with pytest.raises(UsageError, match="no such file"):
        OSWorldSuite("test_al")


def test_upstreams_suites_know_their_size_before_they_are_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path))
    assert {name: OSWorldSuite(name).default_limit for name in UPSTREAM} == UPSTREAM
    with pytest.raises(SetupError, match="agentlab fetch osworld"):
        OSWorldSuite("test_all").task_names()
    assert default_options("osworld") == {"provider": "official"} and default_options("osworld-light") == {}


# -- runs ----------------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def told(monkeypatch):
    """The run's grader."""
    grader = ToldGrader()
    monkeypatch.setattr(machinery, "OfficialGrader", lambda workers, **_: grader)
    return grader


def config(folder, guests, tmp_path, **settings):
    env = {"provider": "address:" + ",".join(str(g.port) for g in guests), "screen": list(SIZE), "timing": "brisk"}
    flags = {
        "suite": f"osworld:{folder}",
        "policy": "scripted",
        "attempts": 2,
        "workers": len(guests),
        "out": tmp_path / "run",
        "env": env,
    }
    return resolve(flags | settings)


def test_a_run_plays_the_recorded_solutions_on_several_guests(folder, told, tmp_path):
    with standin() as one, standin() as two:
        rows = Runner(config(folder, [one, two], tmp_path)).run()
    assert {row.name: (row.score, row.feasible, row.ended_by) for row in rows} == {
        "os/plain": (1.0, True, "finished"), "calc/other": (1.0, True, "finished"), "os/impossible": (1.0, False, "fail"),
    }  # fmt: skip
    summary = summarize(rows, attempts=2)
    assert (summary.success_at[0], summary.feasible_sessions) == (1.0, 2)
    assert told.calls[-1] == ("close", "")


def test_a_failure_of_the_grader_is_retried_and_counted_and_never_a_reward(folder, told, tmp_path):
    broken = InfrastructureError("The grader hung.", component="grader")
    told.scores = {"plain": [broken, 1.0], "other": [broken] * 3}
    with standin() as one:
        rows = {row.name: row for row in Runner(config(folder, [one], tmp_path)).run()}
    assert (rows["os/plain"].score, len(rows["os/plain"].infrastructure)) == (1.0, 1)
    assert (rows["calc/other"].outcome, rows["calc/other"].reward, rows["calc/other"].score) == (
        "infrastructure",
        None,
        None,
    )
    assert [failure.component for failure in rows["calc/other"].infrastructure] == ["grader"] * 3
    summary = summarize(list(rows.values()), attempts=2)
    assert summary.success_at[0] == pytest.approx(2 / 3), "it stays in the denominator"


def test_a_guest_that_fails_in_an_episode_is_no_reward(folder, told, tmp_path):
    with standin() as one:
        one.fail["/screenshot"] = ["drop"] * 3
        rows = Runner(config(folder, [one], tmp_path, tasks=["os/plain"])).run()
    assert rows[0].score == 1.0 and rows[0].infrastructure[0].component == "guest"


def test_more_workers_than_guests_are_refused(guest, told):
    with pytest.raises(UsageError, match="--workers 1"), shared_options({"provider": f"address:{guest.port}"}, "run", 2):
        pass


def test_max_steps_is_a_setting(folder, guest, tmp_path):
    assert {task.max_steps for task in plan(config(folder, [guest], tmp_path, max_steps=50))} == {50}
    with pytest.raises(UsageError, match="no option"):
        plan(config(folder, [guest], tmp_path, env={"providr": "light"}))


def test_what_is_missing_is_said_with_the_command_that_mends_it(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    hints = [error.hint for error in lacking("", {"provider": "official"})]
    assert len(hints) == 4 and all("`" in hint for hint in hints)
    assert any("agentlab fetch osworld --vm" in hint for hint in hints)
    missing = list(lacking("light", {"provider": "address:127.0.0.1:1"}))
    assert any("not usable" in error.message for error in missing)


def test_a_dry_run_shows_the_whole_plan_on_a_machine_that_has_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    monkeypatch.setattr("agentlab.run.needs._gpu_gigabytes", lambda: None)
    said = io.StringIO()
    wanted = resolve({"suite": "osworld", "policy": "ui-tars-7b-dpo", "workers": 2, "out": tmp_path / "run"})
    show(wanted, Console(file=said, width=200))
    text = said.getvalue()
    assert "369 sessions, up to 5 attempts each, 2 at a time" in text
    for word in (
        "GPU memory: about 20 GB",
        "Ubuntu.qcow2, 24.5 GB (not here)",
        "grader (virtual environment), 1.5 GB",
        "Time: about",
        "of the model, which answers all of them one after the other",
    ):
        assert word in text
    missing = [line for line in text.splitlines() if line.startswith("Missing here:")]
    assert len(missing) == 5 and all("`" in line or "--" in line for line in missing)
    with pytest.raises(SetupError) as caught:
        prepare(wanted, print)
    assert caught.value.message.count("\n- ") == 5 and "needs an NVIDIA GPU" in caught.value.message
    assert not (tmp_path / "run").exists()


def test_the_estimate_counts_the_steps_that_were_asked_for_where_the_tasks_are_not_here(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere.sock")
    said = io.StringIO()
    show(resolve({"suite": "osworld", "policy": "noop", "max_steps": 50, "out": tmp_path / "run"}), Console(file=said, width=200))
    assert "attempts of 50 steps" in said.getvalue()


def test_what_one_should_know_is_said_before_a_run(folder, guest, tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path))
    files = {"files": [{"url": "http://x/y", "path": "/home/user/y"}]}
    write_job(folder, job("gimp", related_apps=["gimp"], config=[{"type": "download", "parameters": files}]))
    tasks = list(OSWorldSuite(str(folder)).instances(None, 0))
    said = "\n".join(remarks("osworld-light", {}, tasks))
    assert "1 of these tasks use applications that the light desktop does not have" in said and "1 files" in said
    assert "not cleaned" in "\n".join(remarks("osworld-light", {"provider": f"address:{guest.port}"}, tasks))


def hours(**settings) -> tuple[float, float]:
    flags = {"suite": "osworld-light", "policy": "ui-tars-7b-dpo", "attempts": 4, "limit": 100, "workers": 1} | settings
    load = workload(resolve(flags), sessions=100, steps=15)
    return load.hours(environment_seconds=60.0)


def test_a_plan_of_hours_counts_what_a_run_does():
    """O15: one GPU's replies were divided by the number of workers; redraws, critiques, updates and retries were not counted."""
    (one, _), (eight, _), (sixteen, _) = (hours(workers=workers) for workers in (1, 8, 16))
    model = 100 * 4 * 15 * 3 / 3600
    assert one > eight and eight == sixteen >= model, "one model answers all"
    remote = hours(workers=16, policy="openai:x", model={"family": "ui-tars"})[0]
    assert remote < model, "a server elsewhere may answer several"
    assert hours(adapt={"preset": "rosa"})[0] > hours(adapt={"preset": "none"})[0], "updates take their time"
    assert hours(adapt={"preset": "textgrad"})[0] > hours(adapt={"preset": "none"})[0], "critiques take theirs"
    usual, most = hours(infra_retries=2)
    assert most >= 3 * usual > 0 and hours(infra_retries=0)[1] < most
    assert hours(sampling={"no_repeat": True})[1] > hours(sampling={"no_repeat": False})[1]


def test_a_plan_is_held_against_the_machine(monkeypatch):
    monkeypatch.setattr(needs.psutil, "virtual_memory", lambda: types.SimpleNamespace(total=23e9))
    monkeypatch.setattr(needs.os, "cpu_count", lambda: 4)
    said = "\n".join(needs.machine_lines({"provider": "official"}, 16))
    assert "about 70.4 GB" in said and "has 23 GB" in said and "use --workers 5" in said and "64 processors busy" in said
    assert len(list(needs.machine_lines({"provider": "light"}, 2))) == 1
    assert needs.memory_gb({"provider": "official", "spares": 1}, 1) == needs.memory_gb({"provider": "official"}, 1) + 4.0

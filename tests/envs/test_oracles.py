"""The scripted experts solve their tasks through the real environment, and only read the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from envs import actions as act
from envs.base import TaskSpec
from envs.miniwob.browser import HEIGHT, WIDTH
from envs.miniwob.env import MiniWoBEnv
from envs.miniwob.oracles import oracle_tasks
from envs.miniwob.tasks import ENV_ID, pages

pytestmark = pytest.mark.browser

SEEDS = (0,)  # benchmarks/miniwob_oracles.py runs fifty, and test_replay_miniwob.py plays others of the default suite
MAX_STEPS = 30
ASK_TWICE = """task => {
  const state = () => JSON.stringify([
    document.documentElement.outerHTML, String(getSelection()), document.activeElement.outerHTML,
    Array.from(document.querySelectorAll('input, textarea, select'), (field) => [field.value, field.checked]),
    Array.from(document.querySelectorAll('*'), (element) => element.scrollTop),
  ]);
  const before = state();
  return { first: __lab.oracle(task), second: __lab.oracle(task), untouched: state() === before };
}"""


@pytest.fixture(scope="module")
def env() -> Iterator[MiniWoBEnv]:
    env = MiniWoBEnv(oracle=True)
    yield env
    env.close()


def ask(env: MiniWoBEnv, name: str) -> dict:
    """The expert's reply, once it has been seen to be repeatable and to leave the page alone."""
    asked = env._call(env._running_page().evaluate(ASK_TWICE, name))
    assert asked["first"] is not None
    assert asked["first"] == asked["second"], "asked twice about the same screen, the expert must answer the same"
    assert asked["untouched"], "an expert only reads the page"
    return asked["first"]


def check_reply(env: MiniWoBEnv, reply: dict) -> None:
    """Short thought, one executable action, and, for a pointed action, a box on the screen that holds its point."""
    assert 1 <= len(reply["thought"].split()) <= 8
    (action,) = (act.from_json(data) for data in reply["actions"])
    assert env.action_space.contains(action)
    if isinstance(action, act.POINTED):
        assert action.x == int(action.x) and action.y == int(action.y)
        box = reply["box"]
        assert box["x"] <= action.x <= box["x"] + box["w"] and box["y"] <= action.y <= box["y"] + box["h"]
        assert min(box.values()) >= 0 and box["x"] + box["w"] <= WIDTH and box["y"] + box["h"] <= HEIGHT


@pytest.mark.parametrize("name", oracle_tasks())
def test_expert_solves_its_task(env: MiniWoBEnv, name: str) -> None:
    for seed in SEEDS:
        env.reset(options={"task": TaskSpec(ENV_ID, name, seed, MAX_STEPS)})
        score, over = 0.0, False
        while not over:
            reply = ask(env, name)
            check_reply(env, reply)
            _, score, terminated, truncated, _ = env.step(tuple(act.from_json(data) for data in reply["actions"]))
            over = terminated or truncated
        assert score == 1.0, f"seed {seed} was not solved"


def test_every_expert_belongs_to_a_page() -> None:
    assert len(oracle_tasks()) >= 36
    assert set(oracle_tasks()) <= set(pages())


def test_a_task_without_expert_has_no_answer(env: MiniWoBEnv) -> None:
    env.reset(options={"task": TaskSpec(ENV_ID, "tic-tac-toe", 0, MAX_STEPS)})
    assert env.oracle() is None


def test_experts_work_inside_a_frame(env: MiniWoBEnv) -> None:
    """Their coordinates are the frame's own, wherever the frame lies in the page around it."""
    task = TaskSpec(ENV_ID, "click-test-2", 3, MAX_STEPS)
    env.reset(options={"task": task})
    alone = env.oracle_reply()
    framed = env._call(_framed_reply(env, task))
    assert framed == alone


async def _framed_reply(env: MiniWoBEnv, task: TaskSpec) -> object:
    page = env._running_page()
    source = pages()[task.name].as_uri()
    await page.evaluate(
        """async ([source, width, height]) => {
          document.body.innerHTML = '<div style="height: 40px"></div>';
          const frame = document.createElement('iframe');
          Object.assign(frame, { width, height, src: source, style: 'border: 0; margin-left: 30px' });
          await new Promise((done) => { frame.onload = done; document.body.append(frame); });
        }""",
        [source, WIDTH, HEIGHT],
    )
    frame = page.frames[1]
    await frame.evaluate("seed => __lab.start(seed)", task.seed)
    return await frame.evaluate("task => __lab.oracle(task)", task.name)

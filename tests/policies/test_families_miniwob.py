"""A click in every family's own words and units, in a real Chromium: it lands where the expert's does, and solves the task."""

import pytest

from envs.base import TaskSpec
from envs.miniwob.env import MiniWoBEnv
from envs.miniwob.tasks import ENV_ID
from policies.families.messages import images
from policies.families.registry import families
from policies.families.session import Draw, ProtocolSession
from policies.families.settings import seen_size
from policies.sampling import SamplingConfig

pytestmark = pytest.mark.browser

CALLS = "Thought: go\nAction: click(start_box='<|box_start|>({x},{y})<|box_end|>')"
COMPUTER = (
    'Action: Go.\n<tool_call>\n{{"name": "computer_use", "arguments": {{"action": "left_click", "coordinate": [{x}, {y}]}}}}\n'
    "</tool_call>"
)
CODE = "## Thought:\nHm.\n\n## Action:\nGo.\n\n## Code:\n```python\npyautogui.click(x={x}, y={y})\n```"
CLICKS = {
    **dict.fromkeys(("ui-tars-1", "ui-tars-1.5", "plain"), CALLS),
    "ui-tars-doubao": "Thought: go\nAction: click(point='<point>{x} {y}</point>')",
    **dict.fromkeys(("qwen3-vl", "evocua", "gui-owl-1.5", "gui-owl", "fara", "fara-1.5"), COMPUTER),
    "mai-ui": '<thinking>\nGo.\n</thinking>\n<tool_call>\n{{"name":"mobile_use","arguments":'
    '{{"action":"click","coordinate":[{x},{y}]}}}}\n</tool_call>',
    **dict.fromkeys(("evocua-s1", "opencua", "opencua-v1", "opencua-relative"), CODE),
    "ui-venus-1.5": "<think>Go.</think>\n<action>Click(box=({x},{y}))</action>\n<conclusion>Went.</conclusion>",
}  # fmt: skip


@pytest.fixture(scope="module")
def env():
    env = MiniWoBEnv(oracle=True)  # one Chromium for all families
    yield env
    env.close()


class Expert(ProtocolSession):
    """Replies as a model of the family would that knows where the expert clicks."""

    aim: tuple[float, float] = (0, 0)

    def _draw(self, messages, sampling, seed):
        screen = images(messages)[-1].size
        seen = seen_size(screen, self.settings, self.factor)
        units = self.family.units(screen, seen, self.settings)
        x, y = (round(at * unit / side, 4 if unit == 1 else None) for at, unit, side in zip(self.aim, units, screen, strict=True))
        return Draw(CLICKS[self.family.name].format(x=x, y=y), 1, None, seen)


def test_every_family_has_a_click():
    assert set(CLICKS) == set(families())


@pytest.mark.parametrize("name", CLICKS)
def test_a_click_in_a_familys_own_words_solves_a_task(env, name, tmp_path):
    (tmp_path / "p.txt").write_text("{user_task}\n{previous_actions}")
    family = families()[name]
    settings = family.defaults.model_copy(update={"prompt_file": str(tmp_path / "p.txt")})
    for seed, title in enumerate(("click-test", "click-test-2")):
        task = TaskSpec(ENV_ID, title, seed, 3)
        observation, info = env.reset(options={"task": task})
        session = Expert(
            task,
            seed=0,
            family=family,
            settings=settings,
            sampling=SamplingConfig(),
            factor=family.factor,
            platform=family.platforms[0],
        )
        session.begin(info["instruction"])
        _, (wanted,) = env.oracle()
        session.aim = (wanted.x, wanted.y)
        decision = session.act(observation)
        (done,) = decision.actions
        assert (type(done), done.x, done.y) == (type(wanted), pytest.approx(wanted.x, abs=1), pytest.approx(wanted.y, abs=1))
        _, reward, terminated, _, _ = env.step(decision.actions)
        assert terminated and reward > 0

"""``agentlab settings`` and docs/settings.md say every setting there is, with what it means."""

from pathlib import Path

import pytest

from agentlab.run.keys import known_keys
from agentlab.run.resolve import resolve
from agentlab.run.settings import all_settings, markdown, matching
from envs.errors import UsageError

PAGE = Path(__file__).parents[2] / "docs/settings.md"


def test_the_page_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == markdown(), "run: agentlab settings --markdown > docs/settings.md"


def test_every_setting_is_listed_and_says_what_it_means():
    from agentlab.run.config import RunConfig

    found = all_settings()
    assert {key for key in known_keys(RunConfig) if not key.endswith(".*")} <= {s.name for s in found}
    assert [s.name for s in found if len(s.meaning) < 8 or s.meaning.startswith("See ")] == []
    assert all(s.values and s.default for s in found)
    assert {s.name for s in found} > {"env.provider", "env.browser", "model.base_url", "keep_adapters", "sampling.no_repeat"}


@pytest.mark.parametrize(
    ("asked", "name", "default"),
    [
        ("adapt.beta", "adapt.weights.beta", "1.0"),
        ("beta", "adapt.weights.beta", "1.0"),
        ("no_repeat", "sampling.no_repeat", "false"),
        ("miniwob.browser", "env.browser", "null"),
        ("keep_adapters", "keep_adapters", "last"),
    ],
)
def test_one_setting_by_its_name_or_the_end_of_it(asked, name, default):
    (setting,) = matching(asked)
    assert (setting.name, setting.default) == (name, default)


def test_a_section_and_what_there_is_not():
    assert {s.section for s in matching("adapt.words")} == {s.section for s in matching("words")} == {"adapt.words"}
    assert {s.of for s in matching("adapt.weights.rank")} == {"rosa", "rl"}  # with defaults of their own
    with pytest.raises(UsageError, match="no setting 'betta'") as refused:
        matching("betta")
    assert "'beta'" in refused.value.hint


def test_defaults_said_are_those_of_a_run():
    config = resolve({}).to_json()
    for setting in all_settings():
        if "." not in setting.name and setting.name not in ("limit",):
            value = config[setting.name]
            assert setting.default == (
                "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
            ), setting.name


def test_no_setting_of_a_run_has_a_word_that_yaml_takes_for_true_or_false(tmp_path):
    """``--set experience.weights.scope=off`` was refused: YAML had made it false."""
    given = {"experience": {"dir": tmp_path / "e"}, "policy": "smollm2-135m", "suite": "reasoning"}
    assert resolve(given, sets=["experience.weights.scope=none"]).experience.weights.scope == "none"
    words = {setting.name: set(setting.values.split(", ")) for setting in all_settings() if not setting.name.startswith("env.")}
    assert words["experience.weights.scope"] == {"none", "near", "global", "both"}
    assert [name for name, some in words.items() if some & {"on", "off", "yes", "no", "null", "~"}] == []

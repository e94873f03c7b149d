"""Settings from defaults, presets, files, flags and --set, in that order; and what is said about wrong ones."""

from pathlib import Path

import pytest

from agentlab.run.config import resolve
from envs.errors import UsageError


def test_defaults_a_newcomer_meets():
    config = resolve({"suite": "miniwob"})
    assert (config.policy, config.adapt.preset, config.attempts, config.seed) == ("ui-tars-nano", "none", 5, 0)
    assert config.folder == Path("runs/miniwob-ui-tars-nano-none-s0")
    assert 1 <= config.parallel <= 4


def test_later_layers_win(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("adapt: no-repeat\nattempts: 7\nseed: 3\nsampling: {temperature: 0.5, top_p: 0.9}\n")
    config = resolve({"attempts": 8, "seed": None, "sampling": {"temperature": None}}, file=file, sets=["sampling.top_p=0.8"])
    assert config.sampling.no_repeat  # from the preset
    assert (config.seed, config.sampling.temperature) == (3, 0.5)  # from the file, over the preset
    assert (config.attempts, config.sampling.top_p) == (8, 0.8)  # from the flag and from --set


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.toml", "attempts = 2\n[env]\nx = 1\n"),
        ("c.json", '{"attempts": 2, "env": {"x": 1}}'),
        ("c.yml", "attempts: 2\nenv: {x: 1}"),
    ],
)
def test_file_formats(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    config = resolve({}, file=tmp_path / name)
    assert (config.attempts, config.env) == (2, {"x": 1})


def test_resolved_settings_survive_json():
    from agentlab.run.config import RunConfig

    config = resolve({"tasks": ["a", "b"]}, sets=["temperature=0.7", "model.dtype=float32", "out=x/y"])
    assert RunConfig.model_validate(config.to_json()) == config
    assert config.model == {"dtype": "float32"} and config.sampling.temperature == 0.7


def test_a_temperature_on_request_leaves_what_a_preset_says_of_repeats():
    greedy = resolve({"adapt": {"preset": "rosa2"}, "sampling": {"temperature": 0.0}}).sampling
    assert (greedy.temperature, greedy.no_repeat) == (0.0, True)
    assert not resolve({"adapt": {"preset": "rosa2"}}, sets=["sampling.no_repeat=false"]).sampling.no_repeat


def test_short_keys_are_completed_only_when_one_setting_fits():
    assert resolve({}, sets=["max_new_tokens=99"]).sampling.max_new_tokens == 99
    assert resolve({}, sets=["adapt=best-of-k"]).adapt.preset == "best-of-k"
    assert resolve({}, sets=["words.engine=self"]).adapt.words.engine == "self"
    assert resolve({"adapt": {"preset": "rosa"}}, sets=["adapt.beta=0.3"]).adapt.weights.beta == 0.3


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["attemps=3"], "Did you mean 'attempts'"),
        (["sampling.temprature=1"], "Did you mean 'temperature'"),
        (["attempts=0"], "attempts: .*greater than or equal to 1"),
        (["attempts=many"], "attempts: .*integer"),
        (["seed=-1"], "seed"),
        (["sampling.temperature=-1"], "temperature"),
        (["sampling.top_p=0"], "top_p"),
        (["adapt=roza"], "Did you mean 'rosa'"),
        (["nonsense"], "key=value"),
        (["seed=[1"], "not a value"),
    ],
)
def test_wrong_settings(sets, says):
    with pytest.raises(UsageError, match=says) as caught:
        resolve({}, sets=sets)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "text"), [("a.yaml", "a: [1"), ("a.json", "{"), ("a.toml", "= 1"), ("b.yaml", "- 1"), ("c.yaml", "atempts: 1")]
)
def test_wrong_files(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError):
        resolve({}, file=tmp_path / name)
    with pytest.raises(UsageError, match="Cannot read"):
        resolve({}, file=tmp_path / "missing.yaml")


def test_a_published_sampling_by_name() -> None:
    config = resolve({}, sets=["sampling=official", "sampling.temperature=0.5"])
    assert (config.sampling.temperature, config.sampling.top_p, config.sampling.max_new_tokens) == (0.5, 0.9, 1500)
    with pytest.raises(UsageError, match="Did you mean 'official'"):
        resolve({}, sets=["sampling=oficial"])


def test_a_setting_of_another_method_is_refused_by_its_name() -> None:
    for adapt, setting, owner in (
        ("no-repeat", "adapt.beta=0.3", "rosa"),
        ("slot", "adapt.weights.lr=1", "rl"),
        ("none", "adapt.p_max=.5", "rosa"),
    ):
        with pytest.raises(UsageError, match=f"setting of .*{owner}"):
            resolve({"adapt": {"preset": adapt}}, sets=[setting])

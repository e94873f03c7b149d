"""Settings from defaults, presets, files, flags and --set, in that order; and what is said about wrong ones."""

import json
from pathlib import Path

import pytest

from agentlab.pretrain.config import plan_of
from agentlab.run.config import RunConfig
from agentlab.run.presets import PRESETS
from agentlab.run.resolve import resolve
from envs import osworld
from envs.androidworld.options import read_demonstrations
from envs.errors import UsageError
from envs.reasoning.items import read_items
from envs.suites import get_suite


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
    config = resolve({"tasks": ["a", "b"]}, sets=["temperature=0.7", "model.dtype=float32", "out=x/y"])
    assert RunConfig.model_validate(config.to_json()) == config
    assert config.model == {"dtype": "float32"} and config.sampling.temperature == 0.7


def test_what_nobody_set_is_known_apart_from_what_a_preset_said():
    config = resolve({"suite": "miniwob", "policy": "reference", "adapt": {"preset": "rosa"}}, sets=["sampling.top_p=0.9"])
    assert {"sampling.consistent", "adapt.weights.damping"} <= config.at_default()
    assert not {"sampling.temperature", "sampling.top_p", "adapt.weights.beta", "policy"} & config.at_default()


@pytest.mark.parametrize(
    "suite,preset,sets,needed",
    [
        ("reasoning", "no-repeat", [], "env.feedback=hint"),
        ("reasoning", "none", ["env.feedback=hint"], "sampling.no_repeat=true"),
        ("miniwob", "rosa", [], "env.feedback=hint"),
    ],
)
def test_consistent_is_refused_where_it_would_do_nothing(suite, preset, sets, needed):
    flags = {"suite": suite, "policy": "reference", "adapt": {"preset": preset}}
    with pytest.raises(UsageError) as error:
        resolve(flags, sets=["sampling.consistent=true", *sets])
    assert needed in error.value.hint
    resolve({**flags, "suite": "reasoning"}, sets=["sampling.consistent=true", "sampling.no_repeat=true", "env.feedback=hint"])


def test_a_temperature_on_request_leaves_what_a_preset_says_of_repeats():
    greedy = resolve({"adapt": {"preset": "rosa2"}, "sampling": {"temperature": 0.0}}).sampling
    assert (greedy.temperature, greedy.no_repeat) == (0.0, True)
    assert not resolve({"adapt": {"preset": "rosa2"}}, sets=["sampling.no_repeat=false"]).sampling.no_repeat


@pytest.mark.parametrize("said", ["1e-3", "1E-3", "0.1e-2", ".1e-2", "+1e-3", "0.001"])
def test_a_small_number_as_everybody_writes_it(tmp_path, said):
    assert resolve({"adapt": {"preset": "rl"}}, sets=[f"adapt.weights.lr={said}"]).adapt.weights.lr == 0.001
    (tmp_path / "c.yml").write_text(f"adapt: {{preset: rl, weights: {{lr: {said}}}}}\nenv: {{x: 12e4567, y: '1e3'}}")
    config = resolve({}, file=tmp_path / "c.yml")
    assert config.adapt.weights.lr == 0.001
    assert config.env == {"x": "12e4567", "y": "1e3"}  # a commit, and what is quoted, are no numbers


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yml", "attempts: 3\nseed: 1\nattempts: 7"), ("c.yml", "adapt:\n  preset: rosa\n  weights: {rank: 1}\n  preset: rl"),
        ("c.json", '{"attempts": 3, "attempts": 7}'), ("c.json", '{"adapt": {"preset": "rosa", "preset": "rl"}}'),
    ],
)  # fmt: skip
def test_a_name_that_is_there_twice_is_refused(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=r"the name .(attempts|preset). is there twice"):
        resolve({}, file=tmp_path / name)


def test_numbers_are_what_people_mean_and_a_mark_before_the_text_is_no_text(tmp_path):
    said = "{a: 010, b: 1:30, c: 0x1f, d: 1_000, e: -0, f: 0, g: 1:30.5, h: -1.5, i: 1., j: .5e-2, k: 2.5E3}"
    meant = {
        "a": "010",
        "b": "1:30",
        "c": 31,
        "d": 1000,
        "e": 0,
        "f": 0,
        "g": "1:30.5",
        "h": -1.5,
        "i": 1.0,
        "j": 0.005,
        "k": 2500.0,
    }
    (tmp_path / "c.yml").write_text(f"env: {said}", encoding="utf-8-sig")
    assert resolve({}, file=tmp_path / "c.yml").env == meant  # not 8, 90 and 90.5
    with pytest.raises(UsageError, match="seed"):
        resolve({}, sets=["seed=1:30"])
    (tmp_path / "q.jsonl").write_text('{"question": "1 + 1?", "answer": "2", "kind": "number"}\n', encoding="utf-8-sig")
    assert read_items(tmp_path / "q.jsonl")[0].answer == "2"
    (tmp_path / "merged.yml").write_text("env:\n  x: &a {k: 1}\n  y: {<<: *a, k: 2}\n  z: {<<: *a}")
    assert resolve({}, file=tmp_path / "merged.yml").env == {"x": {"k": 1}, "y": {"k": 2}, "z": {"k": 1}}


def test_a_mark_before_the_text_is_taken_in_every_file_of_a_users(tmp_path):
    light = Path(osworld.__file__).parent / "tasks/light/libreoffice_calc/calc-line-totals.json"
    files = {
        "d.json": '{"Task": [[{"kind": "wait"}]]}', "p.json": '{"steps": 100}', "x/one.json": light.read_text(encoding="utf-8"),
        "x/list.json": '{"y": ["two"]}', "x/y/two.json": light.read_text(encoding="utf-8"),
    }  # fmt: skip
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
    for name, text in (("c.json", '{"seed": 7}'), ("c.toml", "seed = 7"), ("c.yml", "seed: 7")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert resolve({}, file=tmp_path / name).seed == 7
    assert list(read_demonstrations(tmp_path / "d.json")) == ["Task"]
    assert plan_of(tmp_path / "p.json", out=tmp_path).steps == 100
    for name in ("x/one.json", "x/list.json"):
        assert len(list(get_suite(f"osworld:{tmp_path / name}").instances(None, 0))) == 1


def test_short_keys_are_completed_only_when_one_setting_fits():
    assert resolve({}, sets=["max_new_tokens=99"]).sampling.max_new_tokens == 99
    assert resolve({}, sets=["adapt=best-of-k"]).adapt.preset == "best-of-k"
    assert resolve({}, sets=["adapt=textgrad", "words.engine=self"]).adapt.words.engine == "self"
    assert resolve({}, sets=["adapt=rosa", "adapt.beta=0.3"]).adapt.weights.beta == 0.3


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


# -- an axis is on only if the preset or the user names its method -----------------------------------------------------------------
FROZEN = ("none", "best-of-k", "no-repeat")


@pytest.mark.parametrize("preset", FROZEN)
@pytest.mark.parametrize(
    ("said", "offers"),
    [
        ("words.max_chars=500", "textgrad, reflexion, rosa2 or switch"),
        ("words.engine=self", "textgrad, reflexion, rosa2 or switch"),
        ("words.credit=critique", "rosa, rosa-paper, rl, slot, rosa2 or switch"),
        ("adapt.beta=0.3", "rosa, rosa-paper, rl, slot, rosa2 or switch"),
        ("adapt.weights.replay=true", "rosa, rosa-paper, rl, slot, rosa2 or switch"),
        ("adapt.switch_at=2", "rosa2 or switch"),
        ("adapt.switch_first=weights", "rosa2 or switch"),
        ("adapt.score_under=refined", "rosa2 or switch"),
    ],
)
def test_a_frozen_baseline_stays_frozen_whatever_is_set_of_an_axis(preset, said, offers):
    with pytest.raises(UsageError, match=rf"--adapt {preset} does not change the") as refused:
        resolve({"adapt": {"preset": preset}}, sets=[said])
    assert refused.value.hint == f"Choose one that does: --adapt {offers}."


def test_every_setting_of_an_axis_that_is_off_is_refused():
    """Whatever settings there will be: each one is set to another value than its default, under every preset without its axis."""
    from agentlab.run.keys import known_keys

    tried = 0
    for key in known_keys(RunConfig):
        section, _, axis = key.rpartition(".")[0].partition(".")
        if section != "adapt" or axis not in ("words", "weights") or key.endswith((".method", ".credit")):
            continue
        for name, preset in PRESETS.items():
            if preset.method(axis) == "none":
                with pytest.raises(UsageError) as refused:
                    resolve({"adapt": {"preset": name}}, sets=[f"{key}=12345"])
                mistyped = "Input should be" in str(refused.value)  # of a word it is said first what it may be
                assert key in str(refused.value) and ("--adapt" in refused.value.hint or mistyped), (name, key)
                tried += 1
    assert tried > 100


def test_what_the_reward_flag_says_needs_weights_that_learn():
    with pytest.raises(UsageError, match="--adapt textgrad does not change the weights"):
        resolve({"adapt": {"preset": "textgrad", "words": {"credit": "critique"}}})
    judged = resolve({"adapt": {"preset": "rosa", "words": {"credit": "judge", "engine": "self"}}}).adapt
    assert (judged.preset, judged.words.method, judged.words.engine) == ("rosa", "none", "self")  # the judge's engine, no words
    assert resolve({"adapt": {"preset": "none", "words": {"credit": "sparse"}}}).adapt.words.credit == "sparse"  # as it is anyway


def test_a_preset_whose_method_is_replaced_runs_under_the_name_of_the_pair():
    config = resolve({"adapt": {"preset": "rosa"}}, sets=["words.method=reflexion"])
    assert (config.adapt.preset, config.adapt.weights.beta, config.sampling.temperature) == ("reflexion+rosa", 2.0, 0.7)
    assert config.folder == Path("runs/miniwob-ui-tars-nano-reflexion+rosa-s0")
    assert resolve({"adapt": {"preset": "rosa2"}}, sets=["adapt.weights.method=none"]).adapt.preset == "textgrad+none"
    assert resolve({}, sets=["words.method=textgrad"]).adapt.preset == "textgrad+none"
    assert (
        resolve({"adapt": {"preset": "rosa2"}}, sets=["words.method=textgrad", "adapt.weights.method=rosa"]).adapt.preset == "rosa2"
    )


def test_a_pair_can_be_named_by_its_methods_and_resolves_again_to_itself():
    config = resolve({"adapt": {"preset": "reflexion+rosa"}}, sets=["adapt.beta=0.25"])
    assert (config.adapt.words.method, config.adapt.weights.method, config.adapt.weights.beta) == ("reflexion", "rosa", 0.25)
    assert resolve({"adapt": config.to_json()["adapt"]}).adapt == config.adapt
    with pytest.raises(UsageError, match="Unknown adaptation 'rosa\\+'"):
        resolve({"adapt": {"preset": "rosa+"}})
    with pytest.raises(UsageError, match=r"adapt\.words\.method"):
        resolve({"adapt": {"preset": "textgrab+rosa"}})


@pytest.mark.parametrize(("preset", "at", "says"), [("rosa2", 3, "--adapt switch"), ("switch", 0, "--adapt rosa2")])
def test_a_preset_switches_axes_if_and_only_if_its_name_says_so(preset, at, says):
    with pytest.raises(UsageError) as refused:
        resolve({"adapt": {"preset": preset}}, sets=[f"adapt.switch_at={at}"])
    assert says in refused.value.hint
    assert resolve({"adapt": {"preset": "switch"}}, sets=["adapt.switch_at=2"]).adapt.switch_at == 2


@pytest.mark.parametrize("preset", [*PRESETS, "reflexion+rl"])
def test_resolved_settings_given_again_are_the_same(preset, tmp_path):
    """What --dry-run prints is a configuration file."""
    config = resolve({"adapt": {"preset": preset}})
    (tmp_path / "again.json").write_text(json.dumps(config.to_json()))
    assert resolve({}, file=tmp_path / "again.json") == config


@pytest.mark.parametrize("value", [5, ["rosa"], None, 1.5, True])
def test_an_adaptation_that_is_not_one_is_refused(tmp_path, value):
    (tmp_path / "c.json").write_text(json.dumps({"adapt": value}))
    with pytest.raises(UsageError, match="adapt is a group of settings"):
        resolve({}, file=tmp_path / "c.json")
    with pytest.raises(UsageError):
        resolve({}, sets=[f"adapt={json.dumps(value)}"])


@pytest.mark.parametrize(("preset", "said", "owner"), [("slot", "adapt.weights.lr=1", "rl"), ("rl", "adapt.beta=0.5", "rosa")])
def test_a_setting_of_another_method_of_the_weights_is_refused_with_its_name(preset, said, owner):
    with pytest.raises(UsageError, match=f"setting of {owner}"):
        resolve({"adapt": {"preset": preset}}, sets=[said])

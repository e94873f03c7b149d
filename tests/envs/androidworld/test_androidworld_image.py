"""The image definition, as far as it can be checked without an emulator."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import servers

from envs.androidworld import knobs, providers, setup
from envs.errors import UsageError

ROOT = servers.GUEST
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def instructions(word):
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")))
    return [line.split(None, 1)[1].strip() for line in joined.splitlines() if line.startswith(f"{word} ")]


def test_everything_that_is_copied_is_here():
    sources = [source for copy in instructions("COPY") for source in copy.split()[:-1]]
    assert sources and all((ROOT / source).exists() for source in sources), sources
    assert os.access(ROOT / "entrypoint.sh", os.X_OK)


def test_the_entry_point_is_a_script_that_bash_takes():
    script = ROOT / "entrypoint.sh"
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(script)], check=True)


def test_safe_defaults():
    assert instructions("USER")[-1] == "android"
    assert instructions("EXPOSE") == ["5000"]
    assert instructions("FROM") == ["${BASE}"]
    assert "health" in instructions("HEALTHCHECK")[0] and instructions("ENTRYPOINT") == [
        '["/usr/local/lib/androidworld/entrypoint.sh"]'
    ]
    assert not any(line.startswith("RUN") and ("curl" in line or "wget" in line) for line in DOCKERFILE.splitlines())


def test_nothing_of_the_guest_is_imported_here():
    """Upstream's requirements clash with ours; only the container has them."""
    ours = [path for folder in ("agentlab", "envs", "policies", "retrospect") for path in (ROOT.parents[1] / folder).rglob("*.py")]
    ours = [path for path in ours if not path.is_symlink()]  # OSWorld sends a file of its guest to other guests, as text
    bad = re.compile(r"^\s*(from|import) (android_world|android_env|guest|standin)\b", re.MULTILINE)
    assert ours and [str(path) for path in ours if bad.search(path.read_text())] == []


def test_nothing_of_upstreams_requirements_is_ours():
    project = tomllib.loads((ROOT.parents[1] / "pyproject.toml").read_text())["project"]
    wanted = " ".join([*project["dependencies"], *(one for group in project["optional-dependencies"].values() for one in group)])
    assert not re.search(r"\b(android|dm.env|grpc|protobuf|opencv|absl|pandas)", wanted), wanted


def run_guest(*arguments, **environment):
    """The guest's entry in this Python: what needs no phone must need no upstream package either."""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-m", "guest", *arguments], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("GUEST_PORT", "http", "not a number"),
        ("GUEST_PORT", "0", "from 1"),
        ("GUEST_UI_TREE", "magic", "forwarder"),
        ("GUEST_CORES", "99", "64"),
    ],
)
def test_a_bad_setting_is_a_sentence(variable, value, word):
    done = run_guest(**{variable: value})
    assert done.returncode == 2 and variable in done.stderr and word in done.stderr and "Traceback" not in done.stderr


def test_unknown_verbs_and_unreachable_health():
    done = run_guest("dance")
    assert done.returncode == 2 and "prepare" in done.stderr
    done = run_guest("health", GUEST_PORT=str(servers.free_port()))
    assert done.returncode == 1 and "Traceback" not in done.stderr


@pytest.mark.android
def test_without_kvm_the_guest_says_what_is_missing(tmp_path):
    port = servers.free_port()
    env = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "GUEST_PORT": str(port), "GUEST_GRACE_S": "0",
        "PYTHONWARNINGS": "ignore", "GUEST_KVM": str(tmp_path / "no-such-device"),
    }  # fmt: skip
    done = subprocess.run([servers.python(), "-m", "guest"], env=env, capture_output=True, text=True, timeout=240)
    assert done.returncode == 3 and "--device /dev/kvm" in done.stderr and "Traceback" not in done.stderr


def settings_of_the_guest():
    """name -> (default, type) of ``guest/settings.py``, read in a process of its own."""
    script = (
        "import json, dataclasses\nfrom guest import settings as s\n"
        "print(json.dumps({'fields': {f.name: str(f.default) for f in dataclasses.fields(s.Settings)}, 'choices': s.CHOICES, "
        "'limits': s.LIMITS}))"
    )
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return json.loads(subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True).stdout)


def test_every_setting_of_the_guest_is_an_option_of_a_run_or_belongs_to_the_container():
    guest = settings_of_the_guest()
    assert set(guest["fields"]) == set(knobs.KNOBS) | set(knobs.FIXED) and not set(knobs.KNOBS) & set(knobs.FIXED)
    for name, knob in knobs.KNOBS.items():
        assert str(knob.default) == guest["fields"][name], name
        assert list(knob.choices) == guest["choices"].get(name, []), name
        if name in guest["limits"]:
            assert [knob.low, knob.high] == guest["limits"][name], name
    assert set(guest["limits"]) <= set(knobs.KNOBS) | {"port"}


def test_settings_reach_the_container(monkeypatch, tmp_path):
    (tmp_path / "kvm").touch(0o660)
    (tmp_path / "kvm").chmod(0o660)
    monkeypatch.setattr(providers, "KVM", tmp_path / "kvm")
    made = providers.OurProvider.__new__(providers.OurProvider)
    made.knobs = {"boot_timeout_s": 1200, "memory_mb": 6144, "gpu": "swiftshader_indirect", "ui_tree": "none"}
    spec = made.spec()
    assert spec.environment == {
        "GUEST_BOOT_TIMEOUT_S": "1200", "GUEST_MEMORY_MB": "6144", "GUEST_GPU": "swiftshader_indirect", "GUEST_UI_TREE": "none",
    }  # fmt: skip
    assert spec.memory == "10240m" and spec.devices
    done = run_guest("dance", **spec.environment)
    assert "unknown verb" in done.stderr, "the guest takes the values"
    assert knobs.boot_seconds(made.knobs) >= 1800 + 2400, "whoever waits for the container waits as long"
    made.knobs = {"accel": "off"}
    assert not made.spec().devices
    other = providers.UpstreamProvider.__new__(providers.UpstreamProvider)
    other.knobs = {"boot_timeout_s": 900.0, "accel": "on"}
    assert other.spec().environment == {"EMULATOR_TIMEOUT": "900", "HW_ACCEL_OVERRIDE": "-accel on"}


@pytest.mark.parametrize(
    ("option", "value", "provider", "word"),
    [
        ("boot_timeout_s", "long", "ours", "above 0"), ("boot_timeout_s", 0, "ours", "above 0"),
        ("boot_timeout_s", float("nan"), "ours", "above 0"),
        ("memory_mb", 10, "ours", "1536"), ("cores", 2.5, "ours", "whole"), ("gpu", "fast", "ours", "swiftshader"),
        ("ui_tree", "magic", "ours", "forwarder"), ("emulator", "/bin/x; rm", "ours", "path"),
        ("memory_mb", 4096, "upstream", "boot_timeout_s"),
        ("boot_timeout_s", 900, "h:5000", "runs already"), ("boot_timeout", 900, "ours", "boot_timeout_s"),
    ],
)  # fmt: skip
def test_a_bad_setting_of_the_emulator_is_told_before_anything_is_started(option, value, provider, word):
    with pytest.raises(UsageError) as caught:
        list(setup.lacking({"provider": provider, option: value}))
    assert word in f"{caught.value.message} {caught.value.hint}"


def test_settings_for_fetch():
    assert knobs.parse_sets(["boot_timeout_s=1200", "androidworld.cores=2"]) == {"boot_timeout_s": 1200.0, "cores": 2}
    for wrong in ("boot_timeout_s", "boots=1", "cores=two"):
        with pytest.raises(UsageError):
            knobs.parse_sets([wrong])

"""The image definition, as far as it can be checked without an emulator."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import servers

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

"""The image definition, as far as it can be checked without an emulator; and built on a plain base, with the stand-in phone inside."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time

import httpx
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


# -- a container -----------------------------------------------------------------------------------------------------------------
BASE = """
FROM debian:bookworm-slim
ENV PIP_BREAK_SYSTEM_PACKAGES=1 DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-pip libgl1 libglib2.0-0 && rm -rf /var/lib/apt/lists/* \
    && python3 -m pip install --no-cache-dir fastapi uvicorn numpy
"""
"""What of upstream's image the guest needs when the phone is the stand-in."""
NAMES = ("agentlab/test-androidworld-base", "agentlab/test-androidworld")


@pytest.fixture(scope="module")
def image():
    """Our Dockerfile on a plain Debian with a Python of the version that upstream's image has."""
    if not os.environ.get("AGENTLAB_DOCKER"):
        pytest.skip("drives a real Docker Engine: set AGENTLAB_DOCKER=1 to run it")
    import docker

    client = docker.from_env()
    base = io.BytesIO()
    with tarfile.open(fileobj=base, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(BASE)
        tar.addfile(entry, io.BytesIO(BASE.encode()))
    base.seek(0)
    client.images.build(fileobj=base, custom_context=True, tag=NAMES[0], rm=True, forcerm=True)
    client.images.build(path=str(ROOT), tag=NAMES[1], buildargs={"BASE": NAMES[0]}, rm=True, forcerm=True)
    yield client
    for name in reversed(NAMES):
        client.images.remove(name, force=True)
    client.close()


def standin_inside(port):
    """(command, {folder here: folder there}, environment) of our server over the stand-in phone in a container of the image."""
    tests = "/repo/tests/envs/androidworld"
    facts = ROOT.parents[1] / "envs/androidworld/tasks.json"
    folders = {str(servers.HERE): tests, str(facts): "/repo/envs/androidworld/tasks.json"}
    path = ["/usr/local/lib/androidworld", tests]
    if servers.python():
        # Where the requirements of upstream's package lie, and the package itself, which may be elsewhere on the path.
        script = (
            "import pathlib, site, android_world as a; print(site.getsitepackages()[0]); print(pathlib.Path(a.__file__).parents[1])"
        )
        site, source = subprocess.run([servers.python(), "-c", script], capture_output=True, text=True, check=True).stdout.split()
        if "3.11" not in site:
            pytest.skip(f"the base has Python 3.11, upstream's environment is {site}")
        folders |= {site: "/up/site", source: "/up/src"}
        path += ["/up/src", "/up/site"]
    module = "standin.serve" if servers.python() else "lite.serve"
    size = ("--directory", "/tmp/phone", "--width", "180", "--height", "400")
    command = ("python3", "-m", module, "ours", "--port", str(port), *size)
    return command, folders, {"PYTHONPATH": ":".join(path), "PYTHONWARNINGS": "ignore"}


@pytest.mark.docker
def test_the_image_serves_on_a_plain_base(image):
    command, folders, environment = standin_inside(5000)
    container = image.containers.run(
        NAMES[1], list(command[1:]), entrypoint=["python3"], detach=True, init=True, cap_drop=["ALL"],
        security_opt=["no-new-privileges"], volumes={here: {"bind": there, "mode": "ro"} for here, there in folders.items()},
        environment=environment, ports={"5000/tcp": ("127.0.0.1", None)}, labels={"agentlab.test": "androidworld"},
    )  # fmt: skip
    try:
        container.reload()
        published = container.ports["5000/tcp"][0]
        assert published["HostIp"] == "127.0.0.1"
        url = f"http://127.0.0.1:{published['HostPort']}"
        deadline = time.monotonic() + servers.START_SECONDS
        while not healthy(url):
            container.reload()
            assert container.status == "running" and time.monotonic() < deadline, container.logs().decode()[-3000:]
            time.sleep(0.5)
        assert container.exec_run(["id", "-u"]).output.strip() == b"1000"
        assert httpx.get(f"{url}/screenshot", timeout=60, trust_env=False).headers["content-type"] == "image/png"
        check = container.exec_run(["/usr/local/lib/androidworld/entrypoint.sh", "health"])
        assert (check.exit_code, check.output.strip()) == (0, b"ready")
        config = image.images.get(NAMES[1]).attrs["Config"]
        assert config["User"] == "android" and config["ExposedPorts"] == {"5000/tcp": {}}
        assert config["Healthcheck"]["Test"] == ["CMD", "/usr/local/lib/androidworld/entrypoint.sh", "health"]
        started = time.monotonic()
        container.stop(timeout=60)
        assert time.monotonic() - started < 55, "SIGTERM did not end the server"
    finally:
        container.remove(force=True)


def healthy(url):
    try:
        return httpx.get(f"{url}/health", timeout=10, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False

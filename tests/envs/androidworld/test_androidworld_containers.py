"""The image built on a plain Debian with the stand-in phone inside, and a run's containers: several, one that dies, none left behind."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import servers

from envs import actions as act
from envs import containers
from envs.androidworld.env import AndroidWorldEnv
from envs.androidworld.providers import PORT, OurProvider
from envs.androidworld.suite import make_spec
from envs.containers import ContainerSpec
from envs.errors import InfrastructureError

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]  # the first one builds the image
WIFI_OFF = ((18, 24), (50, 16), (50, 18))
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
    client.images.build(path=str(servers.GUEST), tag=NAMES[1], buildargs={"BASE": NAMES[0]}, rm=True, forcerm=True)
    yield client
    for name in reversed(NAMES):
        client.images.remove(name, force=True)
    client.close()


def standin_inside(port):
    """(command, {folder here: folder there}, environment) of our server over the stand-in phone in a container of the image."""
    tests = "/repo/tests/envs/androidworld"
    facts = servers.GUEST.parents[1] / "envs/androidworld/tasks.json"
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


# -- containers of a run -----------------------------------------------------------------------------------------------------------


class StandinProvider(OurProvider):
    """Our provider with the stand-in phone for an emulator, which needs no KVM and no prepared device."""

    boot_seconds = servers.START_SECONDS

    def spec(self) -> ContainerSpec:
        command, folders, environment = standin_inside(PORT)
        return ContainerSpec(
            image=NAMES[1], mend="", ports=(PORT,), init=True, command=command, environment=environment, read_only_files=folders
        )


@pytest.fixture
def provider(image, ledger, tmp_path):
    made = StandinProvider("android-tests", ledger=ledger, log_dir=tmp_path / "logs")
    yield made
    made.close()


def solve(env):
    env.reset(options={"task": make_spec("android_world", "SystemWifiTurnOff", 30)})
    for x, y in WIFI_OFF:
        env.step(act.Click(x * 1.8, y * 4.0))
    return env.step(act.Finished())[1]


def verb(monkeypatch, capsys, *given):
    """What ``agentlab containers`` prints."""
    from agentlab.cli import app as cli

    monkeypatch.setattr(sys, "argv", ["agentlab", "containers", *given])
    monkeypatch.setenv("COLUMNS", "240")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    return printed.out + printed.err


def test_two_workers_a_death_and_nothing_left(provider, ledger, monkeypatch, capsys):
    envs = [AndroidWorldEnv(provider=provider, screen=(180, 400), settle="none") for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(solve, envs)) == [1.0, 1.0]
    rows = [row for row in containers.ls(ledger) if row.owner.run == "android-tests"]
    assert len(rows) == 2 and len({row.container.ports[PORT] for row in rows}) == 2 and all(row.ours for row in rows)

    names = [provider._containers[env.device].name for env in envs]
    listed = verb(monkeypatch, capsys, "ls")
    assert all(name in listed for name in names) and "android-tests" in listed and "this run" not in listed
    assert verb(monkeypatch, capsys, "logs", names[1]) is not None
    verb(monkeypatch, capsys, "stop", names[1])
    with pytest.raises(InfrastructureError):
        solve(envs[1])
    assert solve(envs[1]) == 1.0, "one that was stopped by hand is replaced"

    dead = provider._containers[envs[0].device]
    assert dead.execute(["id", "-u"], 20) == (0, b"1000\n", b"")
    assert dead.execute(["sleep", "60"], 1)[0] == 124, "bounded inside, where the engine would wait"
    envs[0].reset(options={"task": make_spec("android_world", "SystemWifiTurnOff", 30)})
    dead.remove()
    with pytest.raises(InfrastructureError, match="is gone") as caught:
        envs[0].step(act.Click(1, 1))
    assert caught.value.component == "container"
    assert solve(envs[0]) == 1.0, "another emulator took its place"
    assert solve(envs[1]) == 1.0
    for env in envs:
        env.close()
    provider.close()
    provider.close()
    assert not [row for row in containers.ls(ledger) if row.owner.run == "android-tests"]

"""The image built by its whole recipe with the stand-in phone inside, and a run's containers: several, one that dies, none left behind."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import servers

from envs import actions as act
from envs import containers
from envs.androidworld import recipe
from envs.androidworld.env import AndroidWorldEnv
from envs.androidworld.providers import PORT, OurProvider
from envs.androidworld.suite import make_spec
from envs.benchmark import Watcher
from envs.containers import ContainerSpec
from envs.errors import InfrastructureError

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]  # the first one builds the image
WIFI_OFF = ((18, 24), (50, 16), (50, 18))
NAMES = ("agentlab/test-androidworld-base", "agentlab/test-androidworld")
LIKE_UPSTREAM = {
    "setup.py": (
        "import pkg_resources, setuptools\nfrom grpc_tools import protoc\n"
        "setuptools.setup(name='android_world', packages=['android_world'])\n"
    ),
    "pyproject.toml": (
        '[build-system]\nrequires = ["setuptools>=61.0", "grpcio-tools==1.71.0"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "android_world"\nversion = "0.1.0"\nrequires-python = ">=3.11"\n'
        'dependencies = ["absl-py", "android_env==1.2.3", "dm_env", "protobuf==5.29.5", "numpy==1.26.3", "opencv-python", '
        '"fastapi", "uvicorn"]\n'
    ),
    "android_world/__init__.py": "",
}
"""A package that is built as upstream's is: it needs pkg_resources, and what of its requirements our guest server imports."""
LIKE_GOOGLE = {
    "emulator.zip": ("emulator/emulator", "#!/bin/sh\necho stand-in for an emulator\n"),
    "system-image.zip": ("x86_64/system.img", ""),
}
"""Archives that unpack as Google's do."""


def inputs(folder, monkeypatch):
    """What the recipe is given: stand-ins for Google's archives, and for upstream's unless ``AGENTLAB_ANDROID_SOURCE`` is it."""
    for name, (path, text) in LIKE_GOOGLE.items():
        with zipfile.ZipFile(folder / name, "w") as archive:
            entry = zipfile.ZipInfo(path)
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, text)
    for digest, name in (("EMULATOR_SHA1", "emulator.zip"), ("IMAGE_SHA1", "system-image.zip")):
        monkeypatch.setattr(recipe, digest, hashlib.sha1((folder / name).read_bytes()).hexdigest())
    archive = folder / recipe.SOURCE
    if source := os.environ.get("AGENTLAB_ANDROID_SOURCE", ""):
        archive.write_bytes(Path(source).read_bytes())
        recipe.tree_is(recipe.SOURCE_TREE)(archive)
        return
    with (
        gzip.GzipFile(archive, "wb", mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as tar,
    ):
        for name, text in LIKE_UPSTREAM.items():
            entry = tarfile.TarInfo(f"android_world-x/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The recipe, all its stages, and our Dockerfile upon it."""
    if not os.environ.get("AGENTLAB_DOCKER"):
        pytest.skip("drives a real Docker Engine: set AGENTLAB_DOCKER=1 to run it")
    import docker

    client = docker.from_env()
    folder = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as monkeypatch:
        inputs(folder, monkeypatch)
        recipe.build_base(Watcher(), folder, tag=NAMES[0])
    client.images.build(path=str(servers.GUEST), tag=NAMES[1], buildargs={"BASE": NAMES[0]}, rm=True, forcerm=True)
    yield client
    for name in reversed(NAMES):
        client.images.remove(name, force=True)
    client.close()


def test_the_recipe_builds_and_our_layer_finds_what_it_made(image):
    """Upstream's package under our constraints, the unpacked archives, the phone's files in the home of a user without rights."""

    def ran(*command):
        return image.containers.run(NAMES[1], list(command[1:]), entrypoint=[command[0]], remove=True).decode().strip()

    script = "import android_world, android_env.loader, cv2, fastapi, grpc, numpy, PIL; print(numpy.__version__)"
    assert ran("python3", "-c", script) == "1.26.3"
    assert "Android Debug Bridge" in ran("/opt/android/platform-tools/adb", "version") and "ffmpeg" in ran("ffmpeg", "-version")
    assert ran("sh", "-c", "$ANDROID_HOME/emulator/emulator") == "stand-in for an emulator"
    files = ran(
        "sh", "-c", "id -un; cat $ANDROID_AVD_HOME/$GUEST_AVD.ini $ANDROID_AVD_HOME/$GUEST_AVD.avd/config.ini; ls -d /prepared"
    )
    assert files.startswith("android\n") and "path=/home/android/.android/avd/Pixel_6_API_33.avd" in files and "/root" not in files


@pytest.mark.parametrize(
    ("verb", "code", "says"), [("serve", 2, "GUEST_GPU='fast'"), ("health", 1, "refused"), ("play", 2, "unknown verb")]
)
def test_the_entry_point_ends_with_its_exit_codes(image, verb, code, says):
    environment = {"GUEST_GPU": "fast"} if verb == "serve" else {}
    container = image.containers.run(NAMES[1], [verb], environment=environment, detach=True)
    try:
        assert container.wait(timeout=120)["StatusCode"] == code and says in container.logs().decode()
    finally:
        container.remove(force=True)


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


def test_the_image_serves(image):
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
        return httpx.get(f"{url}/health", timeout=10, trust_env=False, verify=False).status_code == 200
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

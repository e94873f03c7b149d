"""Connections that end, suites and providers, without a device and without upstream's package."""

from __future__ import annotations

import io
import itertools
import socket
import sys
import threading
import time
from collections.abc import Callable

import pytest
from fake_devices import FakeDevice, FakeProvider
from PIL import Image

from agentlab.cli import app as cli
from envs.androidworld import addresses, machinery, providers, setup, tasks
from envs.androidworld.adb import SideDoor
from envs.androidworld.addresses import AddressProvider, parse_address
from envs.androidworld.device import Instance
from envs.androidworld.env import AndroidWorldEnv
from envs.androidworld.machinery import default_workers, make_provider, shared_options
from envs.androidworld.suite import AndroidWorldSuite, make_spec
from envs.androidworld.upstream import UpstreamDevice
from envs.connection import Connection
from envs.errors import InfrastructureError, SetupError, UsageError


# -- suites ------------------------------------------------------------------------------------------------------------------------
def test_a_longer_run_begins_like_a_shorter_one_and_no_round_repeats_a_task():
    specs = list(itertools.islice(AndroidWorldSuite().instances(None, 30), 240))
    assert len({spec.id for spec in specs}) == 240 and {spec.name for spec in specs[:116]} == set(tasks.family("android_world"))
    assert specs[:20] == list(itertools.islice(AndroidWorldSuite().instances(None, 30), 20))
    assert [spec.name for spec in specs[:20]] != sorted(spec.name for spec in specs[:20])
    assert sum(spec.max_steps for spec in specs[:116]) == 2349


def test_families_and_what_is_not_in_them():
    assert {name: len(tasks.family(name)) for name in tasks.FAMILIES} == {
        "android_world": 116, "android": 91, "information_retrieval": 25, "miniwob": 92, "miniwob_subset": 62,
    }  # fmt: skip
    with pytest.raises(UsageError, match="ContactsAddContakt"):
        make_spec("android_world", "ContactsAddContakt", 30)
    with pytest.raises(UsageError):
        list(itertools.islice(AndroidWorldSuite("miniwob").instances(["ContactsAddContact"], 30), 1))


def test_a_task_that_names_another_instance_is_refused():
    spec = make_spec("android_world", "ContactsAddContact", 30)
    assert Instance.of(spec) == Instance("android_world", "ContactsAddContact", 30, 0)
    for options in ({**spec.options, "index": 1}, {}, {**spec.options, "suite_seed": None}):
        with pytest.raises(UsageError):
            Instance.of(type(spec)(spec.env_id, spec.name, spec.seed, 12, options=options))


# -- connections -------------------------------------------------------------------------------------------------------------------
@pytest.fixture
def peer():
    """A function: a server that does ``talk(socket)`` to whoever connects; returns its port."""
    listeners = []

    def serve(talk: Callable[[socket.socket], None]) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def loop() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                    accepted.recv(65536)
                    talk(accepted)
                except OSError:
                    return

        threading.Thread(target=loop, daemon=True).start()
        return int(listener.getsockname()[1])

    yield serve
    for listener in listeners:
        listener.close()


def test_an_answer_that_drips_is_given_up_in_time(peer):
    """A bound on single reads alone would wait for this one for hours."""

    def drip(client: socket.socket) -> None:
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            client.sendall(b".")
            time.sleep(0.05)

    started = time.monotonic()
    with pytest.raises(InfrastructureError, match="only"):
        Connection("127.0.0.1", peer(drip)).send("GET", "/", seconds=0.6)
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nshort", b"\x00\x01\x02 not http\r\n\r\n"])
def test_what_is_no_answer_is_a_failure_of_the_machinery(peer, reply):
    def talk(client: socket.socket) -> None:
        client.sendall(reply)
        client.close()

    with pytest.raises(InfrastructureError) as caught:
        Connection("127.0.0.1", peer(talk)).send("GET", "/", seconds=5)
    assert caught.value.component == "guest"


def test_upstreams_server_hangs_up_after_an_error_and_is_asked_on_another_connection(peer):
    """A request that is sent while the server closes its side is lost: each has a connection of its own."""
    talks = []

    def fail(client: socket.socket) -> None:
        talks.append(client)  # left open: whoever uses it again waits for ever
        client.sendall(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 21\r\n\r\nInternal Server Error")

    device = UpstreamDevice("127.0.0.1", peer(fail))
    for number in range(1, 4):
        with pytest.raises(InfrastructureError, match="HTTP 500"):
            device.perform({"type": "tap", "x": 1, "y": 1})
        assert len(talks) == number


# -- the side door -----------------------------------------------------------------------------------------------------------------
def test_behind_the_side_door_upstreams_server_is_not_asked_for_pictures_and_strokes():
    asked = []

    class Inside:
        def execute(self, command, seconds):
            asked.append(command)
            return (0, png(), b"") if "screencap" in command else (0, b"", b"")

    device = UpstreamDevice("127.0.0.1", 1, SideDoor(Inside()))
    assert device.look(tree=False, settle=True).screenshot.shape == (8, 4, 3)
    device.perform({"type": "swipe", "x": 1, "y": 2, "end_x": 3, "end_y": 4, "duration_ms": 500})
    assert asked[-1] == ["adb", "-s", "emulator-5554", "shell", "input", "swipe", "1", "2", "3", "4", "500"]
    with pytest.raises(InfrastructureError, match="/execute_action"):
        device.perform({"type": "tap", "x": 1, "y": 2})


def test_a_side_door_that_does_not_open_is_a_failure_of_the_machinery():
    class Inside:
        def execute(self, command, seconds):
            return 124, b"", b"timed out"

    with pytest.raises(InfrastructureError, match="exit code 124"):
        SideDoor(Inside()).screenshot()


def png() -> bytes:
    buffer = io.BytesIO()
    image = Image.new("RGB", (4, 8))
    image.putpixel((1, 1), (255, 255, 255))
    image.save(buffer, "PNG")
    return buffer.getvalue()


# -- addresses and what the machine lacks ------------------------------------------------------------------------------------------
def test_addresses():
    assert parse_address("127.0.0.1:5000,5001") == ("127.0.0.1", [5000, 5001]) == parse_address("address:5000,5001")
    assert default_workers({"provider": "h:1,2,3"}) == 3 and default_workers({}) == 1
    for wrong in ("", "ours2", "h:", "h:0", "h:1,1", "h:99999", "h:²"):
        with pytest.raises(UsageError, match="not a provider"):
            parse_address(wrong)


def test_a_wrong_port_is_found_out_before_a_run():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(InfrastructureError, match="ConnectError"), shared_options({"provider": f"127.0.0.1:{port}"}, "run", 1):
        pytest.fail("the run was started")


def test_a_server_that_is_coming_back_is_waited_for(monkeypatch):
    states = ["starting", "starting", ""]
    device = FakeDevice()
    monkeypatch.setattr(addresses, "RESTART_POLL_SECONDS", 0.01)
    monkeypatch.setattr(addresses, "protocol_of", lambda host, port: "ours")
    monkeypatch.setattr(addresses, "OurDevice", lambda host, port: device)
    monkeypatch.setattr(device, "missing", lambda: states.pop(0))
    assert AddressProvider("127.0.0.1:1").acquire() is device and not states


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("scroll", "sideways"), ("scroll_share", "wide"), ("settle", 3), ("restore", True), ("finished_answers", "maybe"), ("spares", -1),
        ("spares", "two"), ("image", 5), ("screen", [0, 1]), ("screen", 1080), ("screen", ["a", "b"]), ("demonstrations", "/nowhere.json"),
    ],
)  # fmt: skip
def test_a_bad_value_is_told_before_anything_is_started(option, value):
    with pytest.raises(UsageError):
        list(setup.lacking({"provider": "127.0.0.1:5000", option: value}))
    with pytest.raises(UsageError):
        AndroidWorldEnv(provider=FakeProvider(), **{option: value})


def test_without_kvm_nothing_is_started_and_the_hint_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(providers, "KVM", tmp_path / "kvm")
    monkeypatch.setattr(setup, "require_image", lambda *arguments: None)
    monkeypatch.setattr(setup, "connect", lambda: None)
    for provider in ("ours", "upstream"):
        with pytest.raises(SetupError, match="/dev/kvm"):
            make_provider(provider)
        (error,) = setup.lacking({"provider": provider})
        assert "--provider HOST:PORT" in error.hint
    assert not list(setup.lacking({"provider": "127.0.0.1:5000"}))


def test_containers_get_kvm_and_no_privilege(monkeypatch, tmp_path):
    (tmp_path / "kvm").touch(0o660)
    (tmp_path / "kvm").chmod(0o660)
    monkeypatch.setattr(providers, "KVM", tmp_path / "kvm")
    for kind in (providers.OurProvider, providers.UpstreamProvider):
        made = kind.__new__(kind)
        made.image = kind.image
        spec = made.spec()
        assert spec.devices == (str(tmp_path / "kvm"),) and spec.ports == (5000,) and not spec.cap_add
    assert providers.OurProvider.spec(type("P", (), {"image": "x", "knobs": {}})()).cap_drop == ("ALL",)


class Started:
    """A fleet that only remembers what it was asked to start."""

    def __init__(self, run, **options):
        self.made = type(self).last = {"run": run} | options

    def start_many(self, spec, count, missing, seconds):
        self.made |= {"spec": spec, "count": count, "seconds": seconds}
        return []


def test_emulators_that_stay_take_every_setting_of_one_in_a_run(monkeypatch, capsys):
    """android_world#307: the wall of 300 s must be movable where the emulator is started by hand, too."""
    monkeypatch.setattr(machinery, "Fleet", Started)
    given = [f"--set={text}" for text in ("boot_timeout_s=4000", "androidworld.memory_mb=6144", "accel=off", "image=mine")]
    monkeypatch.setattr(sys, "argv", ["agentlab", "containers", "up", "androidworld", "-n", "2", "--run", "lab", *given])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code, capsys.readouterr().err
    made = Started.last
    spec = made["spec"]
    assert spec.environment == {"GUEST_BOOT_TIMEOUT_S": "4000", "GUEST_MEMORY_MB": "6144", "GUEST_ACCEL": "off"}
    assert (spec.image, spec.memory, spec.devices) == ("mine", "10240m", ())
    assert (made["run"], made["count"], made["detached"]) == ("lab", 2, True) and made["seconds"] >= 2 * 4000


def test_kvm_is_judged_by_what_the_container_may_do_and_by_a_guest_that_ran(monkeypatch, tmp_path):
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(providers, "KVM", device)
    device.chmod(0o600)
    with pytest.raises(SetupError, match="mode 600"):
        providers.require_kvm()
    device.chmod(0o660)
    assert providers.require_kvm() == str(device), "whatever group this user is in"
    with pytest.raises(SetupError, match=r"vmx|ioctl|device"):
        providers.kvm_runs()  # a file that opens, and runs nothing

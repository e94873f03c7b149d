"""The guest's own emulator handling over programs that behave like the SDK's: boot, snapshots, the prepared phone, hanging and dying."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import fake_sdk
import pytest
import servers

PREAMBLE = """
import dataclasses, os, sys, threading, time
from pathlib import Path
from guest.emulator import CLEAN, Emulator
from guest.errors import GuestError
from guest.prepared import Prepared
from guest.settings import Settings
sdk = Path(os.environ["SDK"])
programs = {"emulator": sdk / "emulator", "adb": sdk / "adb", "accel": "off"}
settings = Settings(avd_home=Path(os.environ["AVDS"]), prepared=Path(os.environ["VOLUME"]), **programs)
avd = settings.avd_home / f"{settings.avd}.avd"
avd.mkdir(parents=True, exist_ok=True)
phone = Emulator(settings)
def code(function, *arguments):
    try:
        function(*arguments)
    except GuestError as error:
        return error.code
"""


@pytest.fixture
def guest(tmp_path):
    """Runs lines of Python in a process of its own in which ``guest`` is the AndroidWorld one; returns what it printed."""
    fake_sdk.install(tmp_path / "sdk")
    (tmp_path / "volume").mkdir()

    def run(code: str, name: str = "one") -> list[str]:
        env = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(servers.GUEST), "SDK": str(tmp_path / "sdk"), "AVDS": str(tmp_path / name),
            "VOLUME": str(tmp_path / "volume"),
        }  # fmt: skip
        script = PREAMBLE + textwrap.dedent(code)
        done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    run.sdk = tmp_path / "sdk"  # type: ignore[attr-defined]
    return run


def calls(guest):
    return (guest.sdk / "calls.log").read_text().splitlines()


def test_boot_and_end(guest):
    out = guest("""
        print(phone.answers(5), phone.exit_code())
        phone.start(); phone.wait_until_booted(30)
        print(phone.answers(5), phone.exit_code())
        phone.stop(); phone.stop()
        print(phone.exit_code(), phone.answers(5))
    """)
    assert out == ["False None", "True None", "None False"]
    started = calls(guest)[next(i for i, line in enumerate(calls(guest)) if line.startswith("emulator"))]
    assert started.split(" -ports") == [
        "emulator @Pixel_6_API_33 -no-window -no-boot-anim -no-snapshot",
        " 5554,5555 -grpc 8554 -memory 4096 -cores 4 -gpu off -accel off",
    ]
    assert "adb root" in calls(guest) and "adb shell settings put global window_animation_scale 0.0" in calls(guest)


def test_ports_are_settings(guest):
    out = guest("""
        given = {"GUEST_CONSOLE_PORT": "5560", "GUEST_GRPC_PORT": "9000", "GUEST_ACCEL": "off", "GUEST_AVD": "Mine"}
        other = Settings.from_environment(given)
        print(other.serial, *Emulator(other).command("x")[1:])
    """)
    assert "emulator-5560 @Mine" in out[0] and "-ports 5560,5561 -grpc 9000" in out[0] and "-snapshot x -no-snapshot-save" in out[0]


def test_snapshots(guest):
    out = guest("""
        phone.start(); phone.wait_until_booted(30)
        print(phone.snapshots())
        phone.save("mine"); phone.save(CLEAN)
        print(phone.snapshots(), code(phone.load, "mine"), code(phone.load, "yours"))
        (sdk / "fault").write_text("refuse")
        print(code(phone.save, "again"), code(phone.snapshots))
        (sdk / "fault").unlink()
        phone.stop()
    """)
    assert out == ["[]", "['clean', 'mine'] None unknown_snapshot", "action_failed action_failed"]


def test_an_emulator_that_does_not_boot_is_not_waited_for_for_ever(guest):
    out = guest("""
        (sdk / "fault").write_text("no_boot")
        phone.start()
        print(code(phone.wait_until_booted, 2))
        phone.stop(timeout_s=5)
        (sdk / "fault").write_text("crash")
        phone.start()
        started = time.monotonic()
        print(code(phone.wait_until_booted, 60), phone.exit_code(), time.monotonic() - started < 30)
        print(code(Emulator(Settings(emulator=sdk / "missing", adb=sdk / "adb", accel="off")).start))
    """)
    assert out == ["boot_failed", "boot_failed 9 True", "boot_failed"]


def test_a_phone_that_hangs_is_asked_for_a_bounded_time(guest):
    out = guest("""
        phone.start(); phone.wait_until_booted(30)
        (sdk / "fault").write_text("hang")
        started = time.monotonic()
        print(phone.answers(0.5), code(lambda: phone.adb("shell", "ls", timeout_s=0.5)), time.monotonic() - started < 20)
        phone._process.kill()
    """)
    assert out == ["False device_dead True"]


def test_no_kvm_is_refused_before_anything_is_started(guest):
    out = guest("""
        for kvm in (sdk / "no-such-device", sdk):
            phone = Emulator(Settings(**{**programs, "accel": "auto"}, kvm=kvm))
            try:
                phone.start()
            except GuestError as error:
                print(error.code, error.detail["reason"], "--device /dev/kvm" in error.message)
        (sdk / "kvm").touch()
        print(Emulator(Settings(**{**programs, "accel": "auto"}, kvm=sdk / "kvm")).acceleration())
    """)
    assert out == ["boot_failed no_kvm True", "boot_failed no_kvm True", "on"] and not (guest.sdk / "calls.log").exists()


def test_a_prepared_phone_outlives_its_container(guest):
    """Two containers are two AVD homes; the volume is mounted in both."""
    mounted = "os.path.ismount = lambda path: str(path) == os.environ['VOLUME']\n"
    first = guest(f"""
        {mounted}
        prepared = Prepared(settings)
        print(prepared.has_volume, prepared.is_here(), prepared.fetch(5, print))
        (avd / "userdata.img").write_text("24 applications"); (avd / "snapshots" / CLEAN).mkdir(parents=True)
        prepared.mark(); prepared.keep()
        print(prepared.is_here(), Prepared(settings).is_here())
    """)
    assert first == ["True False False", "True True"]
    second = guest(
        f"""
        {mounted}
        (avd / "userdata.img").write_text("nothing")
        prepared = Prepared(settings)
        print(prepared.is_here(), prepared.fetch(5, print), prepared.is_here(), (avd / "userdata.img").read_text())
        larger = Prepared(dataclasses.replace(settings, memory_mb=8192))
        print(larger.is_here(), larger.fetch(5, print))
        phone.start(snapshot=CLEAN); phone.wait_until_booted(30)
        print(phone.snapshots())
        phone.stop()
    """,
        name="two",
    )
    assert second == ["False True True 24 applications", "False False", "['clean']"]


def test_a_copy_that_was_broken_off_is_not_taken(guest):
    out = guest("""
        os.path.ismount = lambda path: True
        prepared = Prepared(settings)
        (avd / "userdata.img").write_text("half")
        broken = prepared._kept / (avd.name + ".partial")
        broken.mkdir(parents=True); (broken / "agentlab-prepared.json").write_text("{}")
        print(prepared.fetch(5, print))
        (prepared._kept / avd.name).mkdir(); (prepared._kept / avd.name / "agentlab-prepared.json").write_text("{torn")
        print(prepared.fetch(5, print), (avd / "userdata.img").read_text())
    """)
    assert out == ["False", "False half"]


def test_one_installs_and_the_others_wait(guest):
    out = guest("""
        prepared, told = Prepared(settings), []
        with prepared.alone(5, lambda: None):
            other = Prepared(settings)
            def wait():
                with other.alone(0.5, lambda: told.append("waiting")):
                    pass
            print(code(wait), told[:1])
        with other.alone(0.5, lambda: None):
            print("free")
        with prepared._locked(1, 1, print), other._locked(1, 1, print):
            print("copied side by side", code(lambda: other.alone(0.2, lambda: None).__enter__()))
    """)
    assert out == ["boot_failed ['waiting']", "free", "copied side by side boot_failed"]

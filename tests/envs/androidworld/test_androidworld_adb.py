"""The guest's own Emulator class, and android_env's adb controller, over Debian's adb and a phone that speaks its protocol."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap

import pytest
import servers
from PIL import Image

ADB = shutil.which("adb")
pytestmark = pytest.mark.skipif(ADB is None, reason="drives the real adb: apt-get install adb")
STANDIN = """#!/bin/sh
echo $$ >>"$HOME/pids"
PYTHONPATH={path} exec {python} -m standin.adbd "$@"
"""


def free_pair():
    """An even port and the next, both free, among those where an adb server looks for emulators by itself."""
    for port in range(5556, 5585, 2):
        try:
            for one in (port, port + 1):
                socket.create_server(("127.0.0.1", one)).close()
        except OSError:
            continue
        return port
    pytest.skip("all ports of emulators are taken")


@pytest.fixture
def home(tmp_path):
    """Settings of an emulator whose program is the stand-in, as environment variables, with an adb server of its own."""
    (tmp_path / "avd" / "Pixel_6_API_33.avd").mkdir(parents=True)
    (tmp_path / ".emulator_console_auth_token").write_text("0nlyAT3st")
    program = tmp_path / "emulator"
    path = os.pathsep.join([str(servers.HERE), *(one for one in sys.path if one)])
    program.write_text(STANDIN.format(path=path, python=sys.executable))
    program.chmod(0o755)
    console, server = free_pair(), servers.free_port()
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(servers.GUEST), "ANDROID_ADB_SERVER_PORT": str(server),
        "GUEST_CONSOLE_PORT": str(console), "GUEST_ADB_SERVER_PORT": str(server), "GUEST_ADB": str(ADB), "GUEST_EMULATOR": str(program),
        "GUEST_AVD_HOME": str(tmp_path / "avd"), "GUEST_ACCEL": "off", "ADB_MDNS_AUTO_CONNECT": "0",
    }  # fmt: skip
    yield environment
    for pid in (tmp_path / "pids").read_text().split() if (tmp_path / "pids").exists() else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run([str(ADB), "-P", str(server), "kill-server"], env=environment, capture_output=True, timeout=30)


PREAMBLE = """
import os, sys, time
from pathlib import Path
from guest.emulator import CLEAN, Emulator
from guest.errors import GuestError
from guest.settings import Settings
settings = Settings.from_environment()
phone = Emulator(settings)
def code(function, *arguments):
    try:
        return function(*arguments)
    except GuestError as error:
        return error.code
"""


def run(home, script, python=sys.executable):
    done = subprocess.run(
        [python, "-c", PREAMBLE + textwrap.dedent(script)], env=home, capture_output=True, text=True, timeout=180, cwd=home["HOME"]
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_our_emulator_class_over_the_real_adb(home):
    out = run(home, """
        print(phone.answers(3), phone.exit_code())
        phone.start(); phone.wait_until_booted(60)
        print(phone.answers(5), phone.exit_code(), phone.adb("get-state", timeout_s=10))
        print(phone.snapshots())
        phone.adb("shell", "settings put global wifi_on 0", timeout_s=10)
        phone.save("mine"); phone.save(CLEAN)
        phone.adb("shell", "settings put global wifi_on 1", timeout_s=10)
        print(phone.snapshots(), code(phone.load, "yours"))
        phone.load("mine")
        print(phone.adb("shell", "settings get global wifi_on", timeout_s=10))
        print(code(lambda: phone.adb("shell", "no_such_program", timeout_s=10)))
        phone.stop(); phone.stop()
        print(phone.exit_code(), phone.answers(3))
        phone.start(snapshot="mine"); phone.wait_until_booted(60)
        print(phone.adb("shell", "settings get global wifi_on", timeout_s=10))
        phone.stop()
    """)  # fmt: skip
    assert out == [
        "False None", "True None device", "[]", "['clean', 'mine'] unknown_snapshot", "0", "device_dead", "None False", "0",
    ]  # fmt: skip


def test_files_pictures_exit_codes_and_faults(home, tmp_path):
    data = os.urandom(1_000_003)
    (tmp_path / "given").write_bytes(data)
    console = int(home["GUEST_CONSOLE_PORT"])
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [home["GUEST_EMULATOR"], "@Pixel_6_API_33", "-ports", f"{console},{console + 1}"]
    emulator = subprocess.Popen(command, env=home | {"ANDROID_AVD_HOME": home["GUEST_AVD_HOME"]}, **quiet)
    adb = [str(ADB), "-P", home["ANDROID_ADB_SERVER_PORT"], "-s", f"emulator-{home['GUEST_CONSOLE_PORT']}"]

    def call(*words):
        return subprocess.run([*adb, *words], env=home, capture_output=True, timeout=60)

    try:
        assert call("wait-for-device").returncode == 0, "found unaided: nobody told adb where it is"
        assert call("push", str(tmp_path / "given"), "/sdcard/Download/given").returncode == 0
        assert call("pull", "/sdcard/Download/given", str(tmp_path / "back")).returncode == 0
        assert (tmp_path / "back").read_bytes() == data
        assert b"does not exist" in (missing := call("pull", "/sdcard/nothing", str(tmp_path / "none"))).stderr + missing.stdout
        assert missing.returncode == 1
        assert Image.open(io.BytesIO(call("exec-out", "screencap", "-p").stdout)).size == (180, 400)
        failed = call("shell", "no_such_program")
        assert failed.returncode == 1 and b"no_such_program" in failed.stderr
        assert b"already running as root" in call("root").stdout
        assert b"KO" in call("emu", "avd", "snapshot", "load", "nothing").stdout
        (tmp_path / ".emulator_console_auth_token").write_text("another")
        control = tmp_path / "avd" / "Pixel_6_API_33.avd" / "phone" / "control.json"
        control.write_text('{"dead": true}')
        assert call("shell", "getprop", "sys.boot_completed").returncode == 1
    finally:
        (tmp_path / ".emulator_console_auth_token").write_text("0nlyAT3st")
        call("emu", "kill")
        emulator.wait(20)


ANDROID_ENV = """
from android_env.components import adb_controller, config_classes, errors
phone.start(); phone.wait_until_booted(60)
config = config_classes.AdbControllerConfig(
    adb_path=str(settings.adb), adb_server_port=settings.adb_server_port, device_name=settings.serial
)
controller = adb_controller.AdbController(config)
print(controller.execute_command(["shell", "getprop", "sys.boot_completed"]).decode().strip())
print(controller.execute_command(["exec-out", "screencap", "-p"])[1:4])
try:
    controller.execute_command(["shell", "no_such_program"], timeout=5)
except errors.AdbControllerError as error:
    print(type(error).__name__)
phone.stop()
"""


@pytest.mark.android
def test_android_envs_own_adb_controller(home):
    assert run(home, ANDROID_ENV, servers.python()) == ["1", "b'PNG'", "AdbControllerError"]

"""The official host code against our desktop: desktop-env's controllers and getters, unmodified, in the grader's own environment."""

import json
import subprocess

import pytest

from envs.errors import SetupError
from envs.osworld.ports import CHROMIUM, SERVER
from envs.osworld.upstream import grader_python

pytestmark = pytest.mark.docker

HOST = """
import json, re, sys, time, types
sys.modules["easyocr"] = types.ModuleType("easyocr")  # 5 GB, for three tasks
from desktop_env.controllers.python import PythonController
from desktop_env.controllers.setup import SetupController
from desktop_env.evaluators import getters

server, chromium, cache = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
controller = PythonController(vm_ip="127.0.0.1", server_port=server)
setup = SetupController(vm_ip="127.0.0.1", server_port=server, chromium_port=chromium, cache_dir=cache, client_password="",
                        screen_width=1920, screen_height=1080)
env = types.SimpleNamespace(vm_ip="127.0.0.1", server_port=server, chromium_port=chromium, cache_dir=cache, controller=controller,
                            setup_controller=setup)

def until(what):
    end = time.monotonic() + 120
    while not what() and time.monotonic() < end:
        time.sleep(0.5)
    return what()

said = {}
said["setup"] = setup.setup([
    {"type": "execute", "parameters": {"command": ["touch", "/home/user/note.txt"]}},
    {"type": "open", "parameters": {"path": "/home/user/note.txt"}},
    {"type": "activate_window", "parameters": {"window_name": "note.txt"}},
    {"type": "sleep", "parameters": {"seconds": 1}},
], False)
said["screenshot"] = controller.get_screenshot()[:8].hex()
controller.execute_action({"action_type": "CLICK", "parameters": {"x": 960, "y": 540}})
said["pointer"] = until(lambda: "x=960 y=540" in controller.execute_python_command("print('x=%d y=%d' % pyautogui.position())")["output"])
title = "wmctrl -l | grep note.txt; true"
if not until(lambda: "note.txt" in controller.run_bash_script(title)["output"]):
    raise SystemExit("no editor")
setup._activate_window_setup("note.txt")
controller.execute_action({"action_type": "TYPING", "parameters": {"text": "official words"}})
until(lambda: re.search("[*].*note.txt", controller.run_bash_script(title)["output"]))
said["in the tree"] = until(lambda: "official words" in (controller.get_accessibility_tree() or ""))
controller.execute_action({"action_type": "HOTKEY", "parameters": {"keys": ["ctrl", "s"]}})
until(lambda: b"official" in (controller.get_file("/home/user/note.txt") or b""))
said["file"] = open(getters.get_vm_file(env, {"path": "/home/user/note.txt", "dest": "note.txt"})).read().strip()
said["command"] = getters.get_vm_command_line(env, {"command": ["cat", "/home/user/note.txt"]}).strip()
said["size"] = getters.get_vm_screen_size(env, {})
said["platform"] = controller.get_vm_platform()
said["desktop"] = controller.get_vm_desktop_path()
said["script"] = controller.run_python_script("print(6 * 7)")["output"].strip()
said["home"] = sorted(child["name"] for child in controller.get_vm_directory_tree("/home/user")["children"] if child["name"] == "note.txt")
said["terminal"] = controller.get_terminal_output()
controller.start_recording()
time.sleep(1)
controller.end_recording(cache + "/film.mp4")
said["film"] = b"ftyp" in open(cache + "/film.mp4", "rb").read(16)
setup._close_window_setup("note.txt")
said["closed"] = until(lambda: "note.txt" not in controller.run_bash_script(title)["output"])
print("SAID" + json.dumps(said))
"""


def test_the_official_controllers_and_getters_work_on_our_desktop(guest, tmp_path):
    try:
        python = grader_python()
    except SetupError as error:
        pytest.skip(str(error))
    command = [str(python), "-c", HOST, str(guest.ports[SERVER]), str(guest.ports[CHROMIUM]), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=570)
    line = next((line for line in done.stdout.splitlines() if line.startswith("SAID")), None)
    assert line, done.stdout[-1000:] + done.stderr[-2000:]
    assert json.loads(line.removeprefix("SAID")) == {
        "setup": True, "screenshot": b"\x89PNG\r\n\x1a\n".hex(), "pointer": True, "in the tree": True, "file": "official words",
        "command": "official words", "size": {"width": 1920, "height": 1080}, "platform": "Linux", "desktop": "/home/user/Desktop",
        "script": "42", "home": ["note.txt"], "terminal": None, "film": True, "closed": True,
    }  # fmt: skip

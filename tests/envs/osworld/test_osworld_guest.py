"""The light desktop as a guest: OSWorld's protocol route by route, clean resets, and machinery that fails."""

import io
import subprocess
import time

import httpx
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from PIL import Image

from envs import actions as act
from envs.errors import InfrastructureError, UsageError
from envs.osworld.env import OSWorldEnv
from envs.osworld.providers import LightProvider

pytestmark = pytest.mark.docker


def until(what, seconds=30.0):
    end = time.monotonic() + seconds
    while not (found := what()) and time.monotonic() < end:
        time.sleep(0.3)
    return found


@pytest.fixture
def http(guest):
    with httpx.Client(base_url=f"http://{guest.client.address}", timeout=60, trust_env=False) as made:
        yield made


def test_looking(http):
    shot = http.get("/screenshot")
    assert shot.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(shot.content)).size == (1920, 1080)
    assert http.post("/screen_size").json() == {"width": 1920, "height": 1080}
    assert http.get("/terminal").json() == {"output": None, "status": "success"}
    assert http.get("/platform").text == "Linux"
    assert len(http.get("/cursor_position").json()) == 2
    tree = http.get("/accessibility").json()["AT"]
    assert "<desktop-frame" in tree and 'name="xfce4-panel"' in tree and "cp:screencoord=" in tree
    assert http.post("/wallpaper").content.startswith(b"\x89PNG")
    assert http.post("/desktop_path").json() == {"desktop_path": "/home/user/Desktop"}
    assert http.post("/window_size", data={"app_class_name": "xfdesktop"}).json() == {"width": 1920, "height": 1080}
    assert http.post("/window_size", data={"app_class_name": "nothing"}).status_code == 500


def test_rest_is_when_no_program_has_anything_to_do(http, client):
    assert client.wait_for_rest(60.0) is True
    client.launch(["sh", "-c", "while :; do :; done"])
    try:
        assert until(lambda: "sh" in http.get("/agentlab/rest").json()["busy"])
        assert client.wait_for_rest(1.0) is False
    finally:
        client.execute(["pkill", "-f", "while :; do :; done"])
    assert client.wait_for_rest(60.0) is True


def test_the_browser_ends_as_the_official_tasks_end_it(client):
    client.launch(["google-chrome", "--remote-debugging-port=1337"])
    assert until(lambda: client.execute(["pgrep", "-x", "chrome"]).output)
    client.execute(["pkill", "chrome"])
    assert until(lambda: not client.execute(["pgrep", "-f", "google-chrome"]).output)


def test_files(http):
    sent = http.post("/setup/upload", data={"file_path": "~/new/folder/a.bin"}, files={"file_data": b"\x00\xff"})
    assert (sent.status_code, sent.text) == (200, "File Uploaded: 2 bytes")
    assert http.post("/file", data={"file_path": "/home/user/new/folder/a.bin"}).content == b"\x00\xff"
    assert http.post("/file", data={"file_path": "/nowhere"}).status_code == 404
    assert http.post("/file").status_code == 400
    tree = http.post("/list_directory", json={"path": "/home/user/new"}).json()["directory_tree"]
    inner = {"type": "directory", "name": "folder", "children": [{"type": "file", "name": "a.bin"}]}
    assert tree == {"type": "directory", "name": "new", "children": [inner]}
    assert http.post("/list_directory", json={"path": "/nowhere"}).status_code == 400


def test_commands(http):
    def run(command, shell=False, route="/setup/execute"):
        return http.post(route, json={"command": command, "shell": shell}).json()

    assert run(["echo", "$HOME"]) == {"status": "success", "output": "$HOME\n", "error": "", "returncode": 0}
    assert run("echo $HOME; exit 3", shell=True, route="/execute")["output"] == "/home/user\n"
    assert run("echo 'a b'")["output"] == "a b\n"
    assert run(["id", "-u"])["output"] == "1000\n"
    assert http.post("/execute", json={"command": ["no-such-program"]}).status_code == 500
    done = run(["python", "-c", "import pyautogui; import time; pyautogui.FAILSAFE = False; print(pyautogui.size().width)"])
    assert done["output"] == "1920\n", "as the official controller runs everything"
    python = http.post("/run_python", json={"code": "print(1); import sys; sys.exit(2)"}).json()
    assert (python["status"], python["output"], python["return_code"]) == ("error", "1\n", 2)
    script = http.post("/run_bash_script", json={"script": "echo out; echo err >&2"}).json()
    assert script == {"status": "success", "output": "out\nerr\n", "error": "", "returncode": 0}
    verified = {"command": ["true"], "verification": {"command_success": "test -d /home"}, "max_wait_time": 5}
    assert http.post("/setup/execute_with_verification", json=verified).json()["verification"] == "passed"
    verified["verification"] = {"window_exists": "no such window"}
    verified["max_wait_time"] = 1
    assert http.post("/setup/execute_with_verification", json=verified).status_code == 500


def test_windows_wallpaper_and_recording(http, client):
    assert http.post("/setup/open_file", json={"path": "/nowhere"}).status_code == 404
    client.upload("/home/user/shown.txt", b"shown")
    client.open_file("/home/user/shown.txt")
    assert http.post("/setup/activate_window", json={"window_name": "shown.txt"}).text == "Window activated successfully"
    assert http.post("/setup/close_window", json={"window_name": "shown.txt"}).text == "Window closed successfully."
    assert http.post("/setup/activate_window", json={"window_name": "no such window"}).status_code == 200
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 0, 0)).save(picture, "PNG")
    client.upload("/home/user/red.png", picture.getvalue())
    assert http.post("/setup/change_wallpaper", json={"path": "/home/user/red.png"}).status_code == 200
    assert http.post("/wallpaper").content == picture.getvalue()
    assert http.post("/start_recording").json()["status"] == "success"
    assert http.post("/start_recording").status_code == 400
    video = http.post("/end_recording")
    assert video.status_code == 200 and b"ftyp" in video.content[:16]
    assert http.post("/end_recording").status_code == 400


def test_many_requests_at_once_are_all_answered(http, guest):
    """python-xlib hangs for ever when two threads use one connection."""
    routes = ["-X GET {}/screenshot", "-X POST {}/screen_size", "-X GET {}/cursor_position", "-X GET {}/agentlab/ready"]
    base = f"http://{guest.client.address}"
    command = ["curl", "-s", "-m", "120", "-o", "/dev/null", "-w", "%{http_code}"]
    asked = [subprocess.Popen([*command, *route.format(base).split()], stdout=subprocess.PIPE) for route in routes * 6]
    codes = [process.communicate(timeout=150)[0].decode().strip() for process in asked]
    assert len(codes) == 24 and set(codes) <= {"200", "503"}


def test_unknown_input_is_refused(http):
    assert http.post("/agentlab/input", json={"operations": [{"op": "reboot"}]}).status_code == 400
    assert http.post("/agentlab/input", json={"operations": [{"op": "click", "button": 77}]}).status_code == 400
    assert http.post("/agentlab/input", json={"operations": [{"op": "keys", "keysyms": ["NoSuchKey"]}]}).status_code == 400


def test_a_reset_brings_a_truly_clean_desktop(provider):
    env = OSWorldEnv(provider=provider)
    first, info = env.reset(seed=0)
    assert info["instruction"]
    old = env.guest
    old.client.execute(["sh", "-c", "echo dirt | tee ~/dirt ~/Desktop/dirt /tmp/dirt; echo dirt | xsel -ib >/dev/null 2>&1"])
    old.client.execute(["xfconf-query", "-c", "xfce4-panel", "-p", "/panels/panel-1/size", "-s", "60"])
    old.client.launch(["sleep", "12345"])
    env.step(act.DoubleClick(73, 185))
    second, _ = env.reset(seed=0)
    new = env.guest.client
    assert env.guest.container.name != old.container.name
    assert np.array_equal(first["screenshot"], second["screenshot"]), "the same start, pixel for pixel"
    found = new.execute(["sh", "-c", "find / -name dirt 2>/dev/null; pgrep -f 'sleep 12345' | grep -v $$; xsel -ob"]).output
    assert found == ""
    env.close()
    assert until(lambda: old.container.refresh() == "gone")


@pytest.mark.parametrize("fault", ["kill", "pause", "remove"])
def test_a_dead_guest_is_never_a_reward(provider, engine, fault, monkeypatch):
    monkeypatch.setattr("envs.osworld.client.SCREENSHOT_SECONDS", 3.0)
    env = OSWorldEnv(provider=provider)
    env.reset(seed=0)
    container = engine.containers.get(env.guest.container.name)
    {"kill": container.kill, "pause": container.pause, "remove": lambda: container.remove(force=True)}[fault]()
    with pytest.raises(InfrastructureError) as caught:
        env.step(act.Finished())
    assert caught.value.component == "container"
    assert {"kill": "exited", "pause": "paused", "remove": "gone"}[fault] in caught.value.message
    with pytest.raises(UsageError):
        env.step(act.Wait())
    observation, _ = env.reset(seed=0)
    assert observation["screenshot"].shape == (1080, 1920, 3)
    env.close()
    env.close()


def test_gymnasium_finds_nothing_wrong(provider):
    """Its checks compare whole episodes, so every reset must bring the same desktop, pixel for pixel."""
    env = OSWorldEnv(provider=provider)
    check_env(env, skip_render_check=True)
    env.close()


def connections(client) -> int:
    """Connections to the X server, as the kernel counts them."""
    return int(client.execute(["sh", "-c", "grep -c X11-unix/X0 /proc/net/unix; true"]).output)


def test_connections_to_the_screen_do_not_grow(engine, module_ledger, tmp_path):
    """An X server takes 256 of them; a guest that kept each died after some 226 actions, one kept for each (xlang-ai/OSWorld-V2#446)."""
    provider = LightProvider("tests", screen=(640, 480), spares=0, ledger=module_ledger, log_dir=tmp_path)
    guest = provider.acquire()
    try:
        client = guest.client
        client.screenshot()
        client.operate([{"op": "type", "text": "é"}])
        before = connections(client)
        for number in range(60):
            client.screenshot()
            client.operate(
                [{"op": "move", "x": number, "y": 5}, {"op": "click", "button": 2}, {"op": "keys", "keysyms": ["Shift_L"]}]
            )
        assert connections(client) <= before + 2, "other programs come and go"
    finally:
        provider.release(guest)
        provider.close()

"""OSWorld's guest protocol: the routes that its hosts call, with the same inputs, bodies and status codes.

Two routes are ours: ``/agentlab/ready`` (is the desktop drawn?) and ``/agentlab/input`` (exact input as data, see guest.xinput).
The container publishes the port on the loopback interface only: whoever reaches it may run commands as the desktop's user, which is
what the protocol is for.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, jsonify, request, send_file
from werkzeug.serving import WSGIRequestHandler, make_server

from guest import recording, screen, tree, windows, xinput

PORT = 5000
COMMAND_SECONDS = 120.0
PYTHON_SECONDS = 30.0
OPEN_SECONDS = 120.0
"""How long a file may take to show its window.  The original waits half an hour, longer than any episode."""
WALLPAPER = ("xfconf-query", "-c", "xfce4-desktop", "-p")

app = Flask("osworld-guest")


# -- ours -----------------------------------------------------------------------------------------------------------------------
@app.get("/agentlab/ready")
def ready() -> tuple[Response, int]:
    missing = screen.missing_parts()
    return jsonify(drawn=not missing, missing=missing), 503 if missing else 200


@app.post("/agentlab/input")
def perform_input() -> tuple[Response, int]:
    try:
        return jsonify(done=xinput.perform(request.get_json()["operations"])), 200
    except xinput.BadInput as error:
        return jsonify(error=str(error)), 400


# -- looking --------------------------------------------------------------------------------------------------------------------
@app.get("/screenshot")
def screenshot() -> Response:
    return Response(screen.png(screen.grab()), mimetype="image/png")


@app.get("/accessibility")
def accessibility() -> tuple[Response, int]:
    return _tree_answer("AT")


@app.get("/terminal")
def terminal() -> tuple[Response, int]:
    """The text of the terminal in front, or null.  Hosts use it as their sign of life, so nothing slow happens without one."""
    if "terminal" not in screen.active_window_class():
        return jsonify(output=None, status="success"), 200
    return _tree_answer("output", "terminal")


def _tree_answer(field: str, *arguments: str) -> tuple[Response, int]:
    try:
        return jsonify({field: tree.of_desktop(*arguments) or None, "status": "success"}), 200
    except subprocess.CalledProcessError as error:
        app.logger.error("accessibility tree: %s", error.stderr)
        return jsonify(status="error", message=error.stderr[-500:]), 500
    except subprocess.TimeoutExpired:
        return jsonify(status="error", message="An application does not answer on the accessibility bus."), 500


@app.get("/platform")
def platform() -> str:
    return "Linux"


@app.get("/cursor_position")
def cursor_position() -> Response:
    return jsonify(*screen.pointer())


@app.post("/screen_size")
def screen_size() -> Response:
    width, height = screen.size()
    return jsonify(width=width, height=height)


@app.post("/window_size")
def window_size() -> Response:
    size = windows.size_of_class(request.form.get("app_class_name", ""))
    if size is None:
        abort(500, "no window of this class")
    return jsonify(width=size[0], height=size[1])


# -- files ----------------------------------------------------------------------------------------------------------------------
@app.post("/file")
def get_file() -> Response | tuple[Response, int]:
    if "file_path" not in request.form:
        return jsonify(error="file_path is required"), 400
    path = _path(request.form["file_path"])
    if not path.is_file():
        return jsonify(error="File not found"), 404
    return send_file(path, as_attachment=True)


@app.post("/setup/upload")
def upload() -> str | tuple[Response, int]:
    if "file_path" not in request.form or "file_data" not in request.files:
        return jsonify(error="file_path and file_data are required"), 400
    path = _path(request.form["file_path"])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        request.files["file_data"].save(path)
    except OSError as error:
        return jsonify(error=f"Failed to upload file: {error}"), 500
    return f"File Uploaded: {path.stat().st_size} bytes"


@app.post("/list_directory")
def list_directory() -> Response | tuple[Response, int]:
    path = (request.get_json() or {}).get("path")
    if path is None:
        return jsonify(error="Missing 'path' parameter"), 400
    if not Path(path).is_dir():
        return jsonify(error="The provided path is not a directory"), 400
    return jsonify(directory_tree=_directory_tree(Path(path)))


def _directory_tree(folder: Path) -> dict[str, Any]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        return {"error": str(error)}
    children = [_directory_tree(e) if e.is_dir() and not e.is_symlink() else {"type": "file", "name": e.name} for e in entries]
    return {"type": "directory", "name": folder.name, "children": children}


@app.post("/desktop_path")
def desktop_path() -> Response | tuple[Response, int]:
    path = Path.home() / "Desktop"
    return jsonify(desktop_path=str(path)) if path.is_dir() else (jsonify(error="Desktop path not found"), 404)


# -- commands -------------------------------------------------------------------------------------------------------------------
@app.post("/execute")
@app.post("/setup/execute")
def execute() -> tuple[Response, int]:
    data = request.get_json()
    try:
        return jsonify(_execute(data)), 200
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return jsonify(status="error", message=str(error)), 500


@app.post("/execute_with_verification")
@app.post("/setup/execute_with_verification")
def execute_with_verification() -> tuple[Response, int]:
    data = request.get_json()
    wanted = data.get("verification") or {}
    started = time.monotonic()
    limit = float(data.get("max_wait_time", 10))
    try:
        result = _execute(data)
        if not wanted:
            return jsonify(result), 200
        while time.monotonic() - started < limit:
            if _verified(wanted):
                return jsonify(result | {"verification": "passed", "wait_time": time.monotonic() - started}), 200
            time.sleep(float(data.get("check_interval", 1)))
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return jsonify(status="error", message=str(error)), 500
    return jsonify(result | {"status": "verification_failed", "verification": "failed", "wait_time": limit}), 500


def _verified(wanted: dict[str, str]) -> bool:
    title = wanted.get("window_exists", "").lower()
    if title and not any(title in name.lower() for _, name in windows.titles()):
        return False
    command = wanted.get("command_success")
    return not command or subprocess.run(["sh", "-c", command], capture_output=True, timeout=5, check=False).returncode == 0


def _execute(data: dict[str, Any]) -> dict[str, Any]:
    command, shell = _command(data)
    done = subprocess.run(command, shell=shell, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    return {"status": "success", "output": done.stdout, "error": done.stderr, "returncode": done.returncode}


def _command(data: dict[str, Any]) -> tuple[str | list[str], bool]:
    shell = bool(data.get("shell", False))
    command = data.get("command", "" if shell else [])
    if isinstance(command, str):
        if shell:
            return command, shell
        command = shlex.split(command)
    return [os.path.expanduser(word) if word.startswith("~/") else word for word in command], shell


@app.post("/setup/launch")
def launch() -> str | tuple[Response, int]:
    command, shell = _command(request.get_json())
    try:
        subprocess.Popen(command, shell=shell, start_new_session=True, stdin=subprocess.DEVNULL)
    except (OSError, ValueError) as error:
        return jsonify(status="error", message=str(error)), 500
    return f"{command if isinstance(command, str) else ' '.join(command)} launched successfully"


@app.post("/run_python")
def run_python() -> tuple[Response, int]:
    code = request.get_json().get("code")
    if not code:
        return jsonify(status="error", message="Code not supplied!"), 400
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PYTHON_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        message = "Execution timeout: Code took too long to execute"
        return jsonify(status="error", message=message, error="TimeoutExpired", need_more=False, output=None), 500
    body = {
        "status": "error" if done.returncode else "success", "message": "\n".join(filter(None, (done.stdout, done.stderr))),
        "need_more": False, "output": done.stdout, "error": done.stderr, "return_code": done.returncode,
    }  # fmt: skip
    return jsonify(body), 200


@app.post("/run_bash_script")
def run_bash_script() -> tuple[Response, int]:
    data = request.get_json()
    if not data.get("script"):
        return jsonify(status="error", output="Script not supplied!", error="", returncode=-1), 400
    folder = os.path.expanduser(data.get("working_dir") or "~")
    if not Path(folder).is_dir():
        return jsonify(status="error", output=f"Working directory does not exist: {folder}", error="", returncode=-1), 400
    limit = float(data.get("timeout", 100))
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        script.write(data["script"])
        script.flush()
        try:
            done = subprocess.run(
                ["bash", script.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit, cwd=folder, check=False
            )
        except subprocess.TimeoutExpired:
            message = f"Script execution timed out after {limit:g} seconds"
            return jsonify(status="error", output=message, error="", returncode=-1), 500
    return jsonify(status="error" if done.returncode else "success", output=done.stdout, error="", returncode=done.returncode), 200


# -- windows and wallpaper ------------------------------------------------------------------------------------------------------
@app.post("/setup/open_file")
def open_file() -> tuple[str, int]:
    name = request.get_json().get("path")
    if not name:
        return "Path not supplied!", 400
    path = _path(name)
    if not path.exists() and shutil.which(name) is None:
        return f"Application/file not found: {path}", 404
    command = ["xdg-open", str(path)] if path.exists() else [name]
    subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    shown = (path.name, path.stem) if path.exists() else (name,)
    until = time.monotonic() + OPEN_SECONDS
    while time.monotonic() < until:
        if windows.activate_titled(*shown):
            return "File opened and window activated successfully", 200
        time.sleep(0.5)
    return f"Failed to find window for {shown[0]} within {OPEN_SECONDS:g} seconds.", 500


@app.post("/setup/activate_window")
def activate_window() -> tuple[str, int]:
    return _on_window(windows.activate, "Window activated successfully")


@app.post("/setup/close_window")
def close_window() -> tuple[str, int]:
    return _on_window(windows.close, "Window closed successfully.")


def _on_window(act: Any, message: str) -> tuple[str, int]:
    data = request.get_json()
    if not data.get("window_name"):
        return "window_name required", 400
    act(data["window_name"], bool(data.get("strict", False)), bool(data.get("by_class", False)))
    return message, 200


@app.post("/wallpaper")
def wallpaper() -> Response:
    path = next(iter(_wallpapers().values()), "")
    if not Path(path).is_file():
        abort(404, "Wallpaper file not found")
    return send_file(path, mimetype="image/png")


@app.post("/setup/change_wallpaper")
def change_wallpaper() -> tuple[str, int]:
    name = request.get_json().get("path")
    if not name:
        return "Path not supplied!", 400
    path = _path(name)
    if not path.is_file():
        return f"File not found: {path}", 404
    for property_name in _wallpapers():
        subprocess.run([*WALLPAPER, property_name, "-s", str(path)], timeout=10, check=True)
    return "Wallpaper changed successfully", 200


def _wallpapers() -> dict[str, str]:
    """xfdesktop's wallpaper properties and their values, the visible workspace first."""
    listed = subprocess.run(["xfconf-query", "-c", "xfce4-desktop", "-lv"], capture_output=True, text=True, timeout=10, check=True)
    rows = [line.split(None, 1) for line in listed.stdout.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2 and row[0].endswith("/last-image")}


@app.post("/start_recording")
def start_recording() -> tuple[Response, int]:
    message, status = recording.start(*screen.size())
    return jsonify(status="success" if status == 200 else "error", message=message), status


@app.post("/end_recording")
def end_recording() -> Response | tuple[Response, int]:
    message, status = recording.end()
    return send_file(recording.FILE, as_attachment=True) if status == 200 else (jsonify(status="error", message=message), status)


def _path(name: str) -> Path:
    return Path(os.path.expandvars(os.path.expanduser(name)))


def main() -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line per request would bury what the logs are kept for
    WSGIRequestHandler.protocol_version = "HTTP/1.1"  # keeps a host's connection open between requests
    make_server("0.0.0.0", PORT, app, threaded=True).serve_forever()


if __name__ == "__main__":
    main()

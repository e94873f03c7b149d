"""Routes that run commands as the desktop's user: what OSWorld's setup steps and graders are made of."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request

from guest import windows

COMMAND_SECONDS = 120.0
PYTHON_SECONDS = 30.0

routes = Blueprint("commands", __name__)


@routes.post("/execute")
@routes.post("/setup/execute")
def execute() -> tuple[Response, int]:
    data = request.get_json()
    try:
        return jsonify(_execute(data)), 200
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return jsonify(status="error", message=str(error)), 500


@routes.post("/execute_with_verification")
@routes.post("/setup/execute_with_verification")
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
    return [str(Path(word).expanduser()) if word.startswith("~/") else word for word in command], shell


@routes.post("/setup/launch")
def launch() -> str | tuple[Response, int]:
    command, shell = _command(request.get_json())
    try:
        subprocess.Popen(command, shell=shell, start_new_session=True, stdin=subprocess.DEVNULL)
    except (OSError, ValueError) as error:
        return jsonify(status="error", message=str(error)), 500
    return f"{command if isinstance(command, str) else ' '.join(command)} launched successfully"


@routes.post("/run_python")
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


@routes.post("/run_bash_script")
def run_bash_script() -> tuple[Response, int]:
    data = request.get_json()
    if not data.get("script"):
        return jsonify(status="error", output="Script not supplied!", error="", returncode=-1), 400
    folder = Path(data.get("working_dir") or "~").expanduser()
    if not folder.is_dir():
        return jsonify(status="error", output=f"Working directory does not exist: {folder}", error="", returncode=-1), 400
    limit = float(data.get("timeout", 100))
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as script:
        script.write(data["script"])
        script.flush()
        try:
            done = subprocess.run(
                ["bash", script.name], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit,
                check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            message = f"Script execution timed out after {limit:g} seconds"
            return jsonify(status="error", output=message, error="", returncode=-1), 500
    return jsonify(status="error" if done.returncode else "success", output=done.stdout, error="", returncode=done.returncode), 200

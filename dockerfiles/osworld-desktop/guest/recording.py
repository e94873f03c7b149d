"""A video of the screen, at most one at a time."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

FILE = Path("/tmp/osworld_recording.mp4")
START_SECONDS = 2.0
END_SECONDS = 15.0

_lock = threading.Lock()
_process: subprocess.Popen[bytes] | None = None


def start(width: int, height: int) -> tuple[str, int]:
    """Start recording; returns (message, HTTP status)."""
    global _process
    with _lock:
        if _process is not None and _process.poll() is None:
            return "Recording is already in progress.", 400
        source = ["-f", "x11grab", "-draw_mouse", "1", "-s", f"{width}x{height}", "-r", "30", "-i", os.environ.get("DISPLAY", ":0")]
        command = ["ffmpeg", "-y", "-loglevel", "error", *source, "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
        _process = subprocess.Popen([*command, str(FILE)], stdin=subprocess.PIPE)
        try:
            code = _process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            return "Started recording successfully.", 200
        return f"Failed to start recording: ffmpeg ended with {code}.", 500


def end() -> tuple[str, int]:
    """Finish the file; returns (message, HTTP status)."""
    global _process
    with _lock:
        process, _process = _process, None
        if process is None or process.poll() is not None:
            return "No recording in progress to stop.", 400
        try:
            process.communicate(b"q\n", timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return "Recording process was unresponsive and had to be killed.", 500
        return ("", 200) if FILE.is_file() and FILE.stat().st_size else ("The recording is missing or empty.", 500)

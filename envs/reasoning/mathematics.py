"""``math-verify`` in a process of its own: what a model writes can keep a computer algebra system busy for ever.

An expression that takes longer than :data:`SECONDS` or more memory than :data:`MEMORY_MB` is not an answer (the agent's doing);
if the process is unavailable, that is a failure of the machinery.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import os
import queue
import subprocess
import sys
import threading
from typing import Any

from envs.errors import InfrastructureError, SetupError

SECONDS = 10.0
"""Time limit of one comparison."""
START_SECONDS = 120.0
"""Time limit of the process's start: it imports sympy, which is slow on a busy machine."""
MEMORY_MB = 2048


class MathProcess:
    """One child that compares expressions, started when first needed and again after it was killed.  Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def compare(self, gold: str, answer: str) -> tuple[str | None, bool]:
        """(normal form of ``answer`` or None if it is not an expression, whether it equals ``gold``).

        Raises:
            SetupError: ``math-verify`` is not installed.
            InfrastructureError: not even ``gold`` can be read.
        """
        with self._lock:
            reply = self._ask(gold, answer)
            if reply is None:  # too long, too large or a crash: whose fault was it?
                reply = self._ask(gold, gold)
                if reply is None or not reply["equal"]:
                    raise InfrastructureError(f"The reference answer {gold[:200]!r} cannot be read.", component="grader")
                return None, False
            return reply["form"], bool(reply["equal"])

    def _ask(self, gold: str, answer: str) -> dict[str, Any] | None:
        child = self._running()
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps([gold, answer]) + "\n")
            child.stdin.flush()
            line = self._lines.get(timeout=SECONDS)
        except (OSError, queue.Empty):
            line = None
        if line is None:
            self.close()
            return None
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _running(self) -> subprocess.Popen[str]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        if importlib.util.find_spec("math_verify") is None:
            raise SetupError("Mathematics is graded by math-verify, which is not installed.", "pip install math-verify")
        self._lines = queue.Queue()
        command = [sys.executable, "-m", "envs.reasoning.math_worker", str(MEMORY_MB)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
            encoding="utf-8",
        )  # fmt: skip
        threading.Thread(target=_pump, args=(child, self._lines), daemon=True, name="math-verify").start()
        self._child = child
        try:
            ready = self._lines.get(timeout=START_SECONDS)
        except queue.Empty:
            ready = None
        if ready is None:
            self.close()
            raise InfrastructureError(
                f"The process for mathematics did not start in {START_SECONDS:g} s.",
                f"Try `{sys.executable} -c 'import math_verify'`.", component="grader",
            )  # fmt: skip
        return child

    def close(self) -> None:
        """End the process; may be called twice."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    try:
                        pipe.close()
                    except OSError:  # what was left to be written cannot be any more
                        continue


def _pump(child: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    """Lines of the child as they come, then None: a queue can be waited for with a limit, a pipe cannot."""
    assert child.stdout is not None
    try:
        for line in child.stdout:
            lines.put(line)
    except ValueError:  # closed meanwhile
        pass
    lines.put(None)


_PROCESS = MathProcess()
atexit.register(_PROCESS.close)


def compare(gold: str, answer: str) -> tuple[str | None, bool]:
    """See :meth:`MathProcess.compare`; one process for all of this one."""
    return _PROCESS.compare(gold, answer)

"""Python that a model wrote as its answer, tried in a container: never on the host.

One container per answer, removed afterwards: no network, read-only but for a small /tmp, no capabilities, nobody's account, and limits
on memory, processes, output and time, all of them enforced from outside.  Whatever the answer does in there is a failed answer.
The limits protect the host; they do not make the grade unforgeable: an answer that is written to deceive the interpreter its tests
run in can, as with every grader of this kind.
"""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
import socket as sockets
import threading
import time
import zlib
from dataclasses import dataclass
from typing import Any

from docker.utils.socket import frames_iter

from envs.answers import FENCE, after_thought
from envs.containers import ContainerSpec, Fleet
from envs.containers.engine import connect, engine_errors
from envs.errors import InfrastructureError
from envs.reasoning.graders import NO_ANSWER, Verdict
from envs.reasoning.items import Item

IMAGE = "agentlab/reasoning-sandbox"
DOCKERFILE = "reasoning-sandbox"
MEND = "Build it (a minute): `agentlab setup reasoning`."

SECONDS = 15.0
"""Time limit of one answer with its tests, wall-clock."""
LIFE_SECONDS = 600
"""Seconds after which a container ends by itself, if no process is left to remove it."""
MAX_OUTPUT = 2**20
"""Bytes of output; an answer that writes more is ended."""
MAX_PROGRAM = 2**20
"""Bytes of the answer with its tests."""
MAX_HINT = 600
_ARGUMENT = 100_000
"""Linux takes at most 128 KiB in one argument."""

_HARNESS = """
import os, sys, zlib, base64, linecache
done, write, exit = sys.argv[1], os.write, os._exit
write(1, (done + "-begun\\n").encode())
source = zlib.decompress(base64.b64decode("".join(sys.argv[2:]))).decode()
parts = dict(zip(("answer.py", "tests.py"), source.split(chr(0))))
for name, text in parts.items():
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
space = {"__name__": "answer"}
del sys.argv[1:]
try:
    for name, text in parts.items():
        exec(compile(text, name, "exec"), space)
except BaseException as error:
    import traceback
    write(2, "".join(traceback.format_exception(type(error), error, error.__traceback__.tb_next)).encode()[-20000:])
    exit(1)
write(1, ("\\n" + done + "-passed\\n").encode())
exit(0)
"""


@dataclass(frozen=True)
class Ran:
    """What became of a program.

    Attributes:
        passed: It and its tests came to their end without an exception.
        output: What it wrote to both streams, cut.
        ended: ``done``, ``time`` (the limit) or ``output`` (too much of it).
    """

    passed: bool
    output: str
    ended: str


class Sandbox:
    """Starts a container per answer; safe for threads.

    Args:
        run: Name of the run, for ``agentlab containers``.
        image: With ``python3``, and what the tests import.
        seconds: Time limit of one answer.
        memory: Limit, as Docker writes it.

    Raises:
        SetupError: no Docker Engine answers.
    """

    def __init__(self, run: str, *, image: str = IMAGE, seconds: float = SECONDS, memory: str = "512m") -> None:
        self.seconds = seconds
        self._fleet = Fleet(run)
        self._spec = ContainerSpec(
            image=image, mend=MEND, ports=(), command=("sleep", str(LIFE_SECONDS)), memory=memory, swap=False, pids=64,
            network="none", read_only=True, cpus=1.0, hostname="sandbox", shm="16m",
            small_disks={"/tmp": "size=64m,mode=1777,nosuid,nodev"},
        )  # fmt: skip

    def run(self, answer: str, tests: str) -> Ran:
        """Run ``answer`` and then ``tests`` in one interpreter.

        Raises:
            SetupError: the image is not there.
            InfrastructureError: the engine or the container failed.
        """
        packed = base64.b64encode(zlib.compress(f"{answer.replace(chr(0), '')}\0{tests}".encode(errors="replace"))).decode()
        if len(packed) > MAX_PROGRAM:
            return Ran(False, "The program is too long.", "output")
        container = self._fleet.start(self._spec, lambda _: "", timeout=60)
        try:
            nonce = secrets.token_hex(16)
            chunks = [packed[at : at + _ARGUMENT] for at in range(0, len(packed), _ARGUMENT)]
            return self._execute(container.id, nonce, ["python3", "-I", "-c", _HARNESS, nonce, *chunks])
        finally:
            self._fleet.stop(container)

    def _execute(self, container: str, nonce: str, command: list[str]) -> Ran:
        api = connect().api
        with engine_errors("run an answer"):
            made = api.exec_create(container, command, user="65534:65534", workdir="/tmp", environment={"HOME": "/tmp"})
            stream: Any = api.exec_start(made["Id"], socket=True)
        reader = _Reader(stream)
        reader.thread.join(self.seconds)
        ended = "output" if reader.full else "time" if reader.thread.is_alive() else "done"
        reader.close()
        text = bytes(reader.data).decode(errors="replace")
        if f"{nonce}-begun" not in text:
            raise InfrastructureError(
                f"Python did not start in the sandbox: {text[-300:].strip() or 'no output'}.", MEND, component="container"
            )
        passed = ended == "done" and text.rstrip().endswith(f"{nonce}-passed")
        return Ran(passed, text.replace(f"{nonce}-begun\n", "").replace(f"{nonce}-passed", "").strip(), ended)

    def close(self) -> None:
        """Remove every container that is left; may be called twice."""
        self._fleet.close()


class _Reader:
    """Reads what a program writes in a thread, up to a limit: the caller waits for the thread, with a limit of its own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.data = bytearray()
        self.full = False
        self.thread = threading.Thread(target=self._read, name="answer", daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for _, chunk in frames_iter(self._stream, tty=False):
                self.data += chunk[: MAX_OUTPUT - len(self.data)]
                if len(self.data) >= MAX_OUTPUT:
                    self.full = True
                    return
        except (OSError, ValueError):  # closed by the other thread: the time is up
            return

    def close(self) -> None:
        raw = getattr(self._stream, "_sock", self._stream)
        with contextlib.suppress(OSError):  # the other side was faster
            raw.shutdown(sockets.SHUT_RDWR)
        self._stream.close()
        self.thread.join(5)


def grade_code(item: Item, reply: str, sandbox: Sandbox) -> Verdict:
    """The verdict on a reply to a question of the kind ``code``.

    Raises:
        SetupError, InfrastructureError: as :meth:`Sandbox.run`.
    """
    program = program_of(item, reply)
    if program is None:
        return Verdict(0.0, None, NO_ANSWER)
    form = re.sub(r"\s+", " ", program).strip()[:2000]
    started = time.monotonic()
    ran = sandbox.run(program, item.tests)
    if ran.passed:
        return Verdict(1.0, form)
    if ran.ended == "time":
        return Verdict(0.0, form, f"it had not ended after {round(time.monotonic() - started)} s")
    if ran.ended == "output":
        return Verdict(0.0, form, "it wrote too much")
    return Verdict(0.0, form, _hint(ran.output))


def _hint(output: str) -> str:
    """The end of a traceback: the failing line of the tests, and the exception."""
    return output[-MAX_HINT:].strip() or "it ended without passing its tests"


def program_of(item: Item, reply: str) -> str | None:
    """The program in a reply: the last fenced block that defines what the tests need, else all blocks, else the reply as it is.

    A reply that is only the body of the function that the question begins is put after ``item.prefix``.
    """
    text = after_thought(reply)
    if text is None or not text.strip():
        return None
    blocks = [block for block in FENCE.findall(text) if block.strip()]
    defines = re.compile(
        rf"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+{re.escape(item.entry_point)}\b|^{re.escape(item.entry_point)}\s*=",
        re.MULTILINE,
    )
    whole = [block for block in blocks if item.entry_point and defines.search(block)]
    program = whole[-1] if whole else "\n".join(blocks) if blocks else text
    if item.prefix and item.entry_point and not defines.search(program):
        return item.prefix + program
    if item.prefix and item.entry_point:  # imports and helpers that the question gives
        head = item.prefix[: match.start()] if (match := defines.search(item.prefix)) else ""
        return head + program
    return program

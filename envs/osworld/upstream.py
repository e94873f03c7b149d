"""What is taken from OSWorld itself, pinned, and where it is kept on this machine.

Everything lies in one folder that all runs share: ``$AGENTLAB_CACHE/osworld``, by default ``~/.cache/agentlab/osworld``.  Nothing
in here downloads; ``agentlab fetch osworld`` does.
"""

from __future__ import annotations

import hashlib
import os
import sys
import uuid
from pathlib import Path

from envs.download import cache_of
from envs.errors import SetupError

REPOSITORY = "xlang-ai/OSWorld"
REVISION = "b138d348256078fa634fc3b73567a7337c793e6b"
"""The commit of 2026-09-15: tasks, and the evaluators that belong to them."""
ARCHIVE = f"https://codeload.github.com/{REPOSITORY}/tar.gz/{REVISION}"
INDEX_SHA256 = {
    "test_all": "9ebc5187cbd727ef26c24626820076b102fff812863c640a67c467fea9542ab5",
    "test_nogdrive": "fcb9497e93a8986407345d3012c872c9c2fed253420730fbea64ccfcace67dbb",
}
"""SHA-256 of the files that list the tasks, at this revision."""

HUB = "https://huggingface.co"
FILE_CACHE = "datasets/xlangai/ubuntu_osworld_file_cache"
FILE_CACHE_REVISION = "1e112283c4ecb08d6fed8069bca7de74fa2f12aa"
"""The commit of 2026-08-06.  The tasks name the branch ``main``, which moves."""
DISK = f"{HUB}/datasets/xlangai/ubuntu_osworld/resolve/a5d9c3eaae98eebf6e3a0beb84e7e47cf72ae133/Ubuntu.qcow2.zip"
DISK_ZIP_BYTES = 12_273_896_463
DISK_ZIP_SHA256 = "b795b6cd4c69b252c1b4f10150a347795555032501b60fd031751ed09b896712"
DISK_BYTES = 24_460_197_888
DISK_SHA256 = "6bf667a852b3c307f61d9f09c42559351f45e0607e428b4997becf534cf4d313"

REQUIREMENTS = Path(__file__).with_name("grader_requirements.txt")
"""Every distribution of the grader's virtual environment, with its version; installed without looking at dependencies, because
desktop-env itself asks for 7 GB of which its evaluators use 1.5."""


def cache_folder() -> Path:
    """The shared folder; ``AGENTLAB_CACHE`` moves it, for example to a bigger disk."""
    return cache_of("osworld")


def source_folder() -> Path:
    """Where ``evaluation_examples`` and ``desktop_env`` of the pinned revision are."""
    return cache_folder() / f"upstream-{REVISION[:12]}"


def tasks_folder() -> Path:
    """OSWorld's ``evaluation_examples``.

    Raises:
        SetupError: it has not been fetched.
    """
    folder = source_folder() / "evaluation_examples"
    if not folder.is_dir():
        raise SetupError(f"OSWorld's task set is not on this machine ({folder}).", "Fetch it: `agentlab fetch osworld`.")
    return folder


def disk_file() -> Path:
    """The virtual machine's disk for the official image, whether it is there or not."""
    return cache_folder() / "Ubuntu.qcow2"


def cached_file(url: str) -> Path:
    """Where the file that tasks know as ``url`` is kept, whether it is there or not."""
    return cache_folder() / "files" / str(uuid.uuid5(uuid.NAMESPACE_URL, url))


def pinned(url: str) -> str:
    """The address to really get ``url`` from: OSWorld's file cache at its pinned revision; ``HF_ENDPOINT`` names a mirror."""
    moving, fixed = (f"{HUB}/{FILE_CACHE}/resolve/{revision}/" for revision in ("main", FILE_CACHE_REVISION))
    return mirrored(url.replace(moving, fixed, 1))


def mirrored(url: str) -> str:
    """``url`` at the mirror that ``HF_ENDPOINT`` names, if it names one."""
    return url.replace(HUB, os.environ.get("HF_ENDPOINT", HUB).rstrip("/"), 1)


def grader_folder() -> Path:
    """The grader's virtual environment; another one for other requirements or another Python."""
    version = ".".join(map(str, sys.version_info[:2]))
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + version.encode()).hexdigest()[:8]
    return cache_folder() / f"grader-{version}-{key}"


GRADER_READY = "ready.json"
"""Written into the virtual environment last, when the evaluators have been imported in it."""


def grader_python() -> Path:
    """The interpreter that has OSWorld's evaluators.

    Raises:
        SetupError: it has not been built.
    """
    folder = grader_folder()
    if not (folder / GRADER_READY).is_file():
        raise SetupError(
            "OSWorld's grader is not on this machine.", "Build it (1.5 GB, some minutes): `agentlab fetch osworld --suite light`."
        )
    return folder / "bin" / "python"

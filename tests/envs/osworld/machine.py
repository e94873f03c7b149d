"""The small virtual machine of ``vm/``: built once, for tests that somebody asks for with ``AGENTLAB_VM=1``."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest

from envs import containers
from envs.osworld import upstream

FOLDER = Path(__file__).with_name("vm")
TAG = "agentlab/osworld-vm-test"


def server_folder() -> Path:
    """Upstream's guest server: of the fetched task set, or where ``AGENTLAB_OSWORLD_SERVER`` says."""
    folder = Path(os.environ.get("AGENTLAB_OSWORLD_SERVER") or upstream.source_folder() / "desktop_env" / "server")
    if not (folder / "main.py").is_file():
        pytest.skip("needs upstream's guest server: `agentlab fetch osworld --no-files`, or AGENTLAB_OSWORLD_SERVER=FOLDER")
    return folder


def build() -> None:
    """The image; minutes the first time."""
    server, client = server_folder(), containers.connect()
    with tempfile.TemporaryDirectory() as name:
        context = Path(name) / "context"
        shutil.copytree(FOLDER, context)
        shutil.copytree(server, context / "server", ignore=shutil.ignore_patterns("__pycache__"))
        for chunk in client.api.build(path=str(context), tag=TAG, rm=True, forcerm=True, decode=True, timeout=3600):
            assert "error" not in chunk, chunk["error"]


def disk(folder: Path) -> Path:
    """The machine's disk, taken out of the image."""
    client = containers.connect()
    made = client.containers.create(TAG)
    try:
        stream, _ = made.get_archive("/guest/System.qcow2")
        packed = folder / "disk.tar"
        with packed.open("wb") as file:
            for chunk in stream:
                file.write(chunk)
    finally:
        made.remove(force=True)
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    packed.unlink()
    return folder / "System.qcow2"

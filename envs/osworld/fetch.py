"""``agentlab fetch osworld``: the pinned task set, the files its tasks use, the grader, and on demand the virtual machine's disk.

Every part can be stopped at any time and is continued by the same command; what is there is not fetched again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from envs.benchmark import OnBytes, Watcher
from envs.download import CHUNK, Download, download, download_all, require_space
from envs.errors import LabError, SetupError
from envs.osworld import upstream
from envs.osworld.grading import OfficialGrader
from envs.osworld.jobs import NeededFile, needed_files, read_job
from envs.osworld.suite import UPSTREAM, OSWorldSuite

KEPT = ("evaluation_examples/", "desktop_env/", "LICENSE")
"""What is unpacked of OSWorld's repository."""
GRADER_BYTES = 1_600_000_000
PIP_SECONDS = 3600
EASYOCR = "easyocr==1.7.2"
OCR_BYTES = 6_000_000_000


# -- task set ----------------------------------------------------------------------------------------------------------------------
def fetch_tasks(watch: Watcher, *, archive: str = upstream.ARCHIVE) -> Path:
    """OSWorld's tasks and evaluators of the pinned revision; returns their folder.

    Raises:
        SetupError: they are unavailable, or are not what they should be.
    """
    folder = upstream.source_folder()
    if folder.is_dir():
        watch.say(f"Tasks: {folder} is there.")
        return folder
    packed = folder.with_name(f"{folder.name}.tar.gz")
    download(Download(archive, packed), watch.begin("task set", None))
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="unpack-") as name:
        unpacked = Path(name) / "source"
        try:
            unpack_source(packed, unpacked)
            check_source(unpacked)
        except (LabError, tarfile.TarError, EOFError, OSError) as error:
            packed.unlink(missing_ok=True)
            raise SetupError(f"{archive} is not OSWorld's repository: {error}", "It was removed; fetch it again.") from error
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was quicker
                raise
    packed.unlink(missing_ok=True)
    watch.say(f"Tasks: {folder}")
    return folder


def unpack_source(packed: Path, folder: Path) -> None:
    """Unpack the files that are used, and nothing but plain files, below ``folder``."""
    with tarfile.open(packed, "r:gz") as archive:
        for member in archive:
            inner = "/".join(PurePosixPath(member.name).parts[1:])  # GitHub puts everything below <repository>-<revision>/
            source = archive.extractfile(member) if member.isfile() and inner.startswith(KEPT) and ".." not in inner else None
            if source is not None:
                path = folder / inner
                path.parent.mkdir(parents=True, exist_ok=True)
                with source, path.open("wb") as file:
                    shutil.copyfileobj(source, file, CHUNK)


def check_source(folder: Path) -> None:
    """Make sure that it is the pinned revision's task set, complete and readable.

    Raises:
        SetupError: it is not.
    """
    examples = folder / "evaluation_examples"
    for name, wanted in upstream.INDEX_SHA256.items():
        index = examples / f"{name}.json"
        found = hashlib.sha256(index.read_bytes()).hexdigest() if index.is_file() else "no file"
        if found != wanted:
            raise SetupError(f"{name}.json has another SHA-256 than it should have ({found}).")
    for domain, ids in json.loads((examples / "test_all.json").read_text()).items():
        for task in ids:
            job = read_job(examples / "examples" / domain / f"{task}.json")
            if job["id"] != task:
                raise SetupError(f"The task {domain}/{task} says that it is {job['id']}.")
    if not (folder / "desktop_env" / "evaluators").is_dir():
        raise SetupError("It has no evaluators.")


# -- the files of tasks --------------------------------------------------------------------------------------------------------------
def files_of(suite: OSWorldSuite, limit: int | None = None) -> list[NeededFile]:
    """What the first ``limit`` tasks of the suite download, each address once."""
    names = suite.task_names()[:limit]
    return list({file.url: file for name in names for file in needed_files(suite.jobs[name])}.values())


def fetch_files(files: Iterable[NeededFile], watch: Watcher, *, address: Callable[[str], str] = upstream.pinned) -> None:
    """Get the files that are not there yet.

    Raises:
        SetupError: some could not be downloaded; all others are there, and the message names those.
    """
    files = list(files)
    if not files:
        return
    missing = [Download(address(file.url), file.kept) for file in files if not file.kept.is_file()]
    watch.say(f"Files: {len(files) - len(missing)} of {len(files)} are there.")
    if not missing:
        return
    done = 0

    def on_file(_: Download) -> None:
        nonlocal done
        done += 1
        if done % 50 == 0:
            watch.say(f"Files: {done} of {len(missing)} tried.")

    failures = download_all(missing, watch.begin(f"{len(missing)} files", None), on_file)
    for failure in failures:
        watch.say(failure.message)
    if failures:
        raise SetupError(
            f"{len(failures)} of {len(missing)} files could not be fetched; the others are there.",
            "The same command tries them again.",
        )
    watch.say(f"Files: all {len(files)} are in {upstream.cache_folder() / 'files'}")


# -- the virtual machine -------------------------------------------------------------------------------------------------------------
def fetch_disk(
    watch: Watcher, *, url: str = "", zip_bytes: int = 0, zip_sha256: str = "", disk_bytes: int = 0, disk_sha256: str = ""
) -> Path:
    """The official virtual machine's disk, 24 GB, unpacked from a download of 12 GB; returns its file.

    Args:
        url: Where the archive is, and the other four what it and the disk in it should be; by default the pinned ones.

    Raises:
        SetupError: it is unavailable, or there is no room for it.
    """
    disk = upstream.disk_file()
    size = disk_bytes or upstream.DISK_BYTES
    if disk.is_file() and disk.stat().st_size == size:
        watch.say(f"Virtual machine: {disk} is there.")
        return disk
    packed = Download(
        url or upstream.mirrored(upstream.DISK), disk.with_name(f"{disk.name}.zip"),
        zip_bytes or upstream.DISK_ZIP_BYTES, zip_sha256 or upstream.DISK_ZIP_SHA256,
    )  # fmt: skip
    have = sum(path.stat().st_size for path in (packed.path, packed.part) if path.is_file())
    require_space(disk.parent, (packed.size or 0) - have + size)
    download(packed, watch.begin("virtual machine", packed.size))
    part = disk.with_name(f"{disk.name}.part")
    with zipfile.ZipFile(packed.path) as archive, archive.open(disk.name) as source, part.open("wb") as file:
        found = _copy(source, file, watch.begin("unpacking", size))
    if part.stat().st_size != size:
        raise SetupError(f"{packed.path} holds a disk of {part.stat().st_size} bytes instead of {size}.", f"Remove {packed.path}.")
    if found != (disk_sha256 or upstream.DISK_SHA256):
        raise SetupError(
            f"{packed.path} holds a disk with another SHA-256 than it should have ({found}).", f"Remove {packed.path}."
        )
    part.replace(disk)
    packed.path.unlink()
    watch.say(f"Virtual machine: {disk}")
    return disk


def _copy(source: IO[bytes], file: IO[bytes], on_bytes: OnBytes) -> str:
    """Copy, and return the SHA-256 of what was copied."""
    digest = hashlib.sha256()
    while piece := source.read(CHUNK):
        file.write(piece)
        digest.update(piece)
        on_bytes(len(piece))
    return digest.hexdigest()


# -- the grader ----------------------------------------------------------------------------------------------------------------------
def build_grader(watch: Watcher, *, ocr: bool = False) -> Path:
    """The virtual environment with OSWorld's evaluators, proven by importing them; returns its folder.

    Args:
        watch: Who is told how it goes.
        ocr: Also install easyocr, which three tasks' metric reads pictures with; 5 GB.

    Raises:
        SetupError: it cannot be built.
    """
    folder = upstream.grader_folder()
    ready = folder / upstream.GRADER_READY
    if not ready.is_file():
        require_space(folder.parent, GRADER_BYTES)
        watch.say(f"Grader: building {folder} (1.5 GB; a few minutes) ...")
        venv.create(folder, with_pip=True, clear=False, symlinks=True)
        _pip(folder, ["--no-deps", "-r", str(upstream.REQUIREMENTS)])
        grader = OfficialGrader(python=folder / "bin" / "python")
        try:
            proven = ready.with_suffix(".tmp")
            proven.write_text(json.dumps(grader.versions()) + "\n", encoding="utf-8")
            proven.replace(ready)  # there is either all of it or none
        finally:
            grader.close()
    watch.say(f"Grader: {folder} is ready.")
    if ocr and not list(folder.glob("lib/python*/site-packages/easyocr")):
        require_space(folder.parent, OCR_BYTES)
        watch.say("Grader: installing easyocr (5 GB) ...")
        _pip(folder, [EASYOCR])
    return folder


def _pip(folder: Path, arguments: list[str]) -> None:
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=PIP_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"pip did not finish within {PIP_SECONDS} s.", "The same command goes on.") from error
    if done.returncode != 0:
        reason = next((line for line in done.stderr.splitlines() if "ERROR" in line), done.stderr[-300:]).strip()
        raise SetupError(
            f"pip could not install the grader: {reason}", "The same command goes on; Python here is " + sys.version.split()[0]
        )


# -- all of it -----------------------------------------------------------------------------------------------------------------------
def fetch(
    suite: str, watch: Watcher, *, limit: int | None = None, files: bool = True, disk: bool = False, ocr: bool = False
) -> None:
    """Everything that the suite needs; a part that fails does not keep the others from being fetched.

    Raises:
        SetupError: something could not be downloaded or built.
    """
    failures: list[SetupError] = []

    def part(get: Callable[[], object]) -> None:
        try:
            get()
        except SetupError as error:
            watch.say(error.message)
            failures.append(error)

    if suite in UPSTREAM:
        part(lambda: fetch_tasks(watch))
    if files and not failures:
        found = files_of(OSWorldSuite(suite), limit)
        part(lambda: fetch_files(found, watch))
    part(lambda: build_grader(watch, ocr=ocr))
    if disk:
        part(lambda: fetch_disk(watch))
    if failures:
        raise failures[0]

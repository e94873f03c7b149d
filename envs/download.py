"""Downloads that can be stopped at any time and continued by the same command, and whose bytes are checked.

A file under way is ``<name>.part`` with ``<name>.part.etag`` beside it, so that only bytes of the same version are put together.  A
file under its own name is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from envs.benchmark import OnBytes, nothing
from envs.errors import SetupError

CHUNK = 1 << 20
TRIES = 5
"""Tries at one file; each goes on where the last one stopped."""
PAUSE_SECONDS = 1.0
"""Before the second try; doubled before each further one."""
TIMEOUT = httpx.Timeout(60.0, connect=20.0)
PARALLEL = 4
SPARE_BYTES = 1 << 30
"""Left free on the disk."""
SHA256 = re.compile(r"[0-9a-f]{64}")


def cache_of(benchmark: str) -> Path:
    """Where what a benchmark downloads is kept; ``AGENTLAB_CACHE`` moves it, for example to a bigger disk."""
    base = os.environ.get("AGENTLAB_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "agentlab"
    return Path(base).expanduser() / benchmark


@dataclass(frozen=True)
class Download:
    """A file to download.

    Attributes:
        url: Where it is.
        path: Where it goes.
        size: In bytes, if known beforehand.
        sha256: Of its content, if known beforehand.
    """

    url: str
    path: Path
    size: int | None = None
    sha256: str | None = None

    @property
    def part(self) -> Path:
        return self.path.with_name(self.path.name + ".part")

    @property
    def etag(self) -> Path:
        return self.path.with_name(self.path.name + ".part.etag")


class Broken(Exception):
    """A try that failed; ``final`` when another one would fail too."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


def download(item: Download, on_bytes: OnBytes = nothing, *, stop: threading.Event | None = None) -> Path:
    """Get the file unless it is there; another process that is getting it is waited for.

    Raises:
        SetupError: it could not be downloaded; what was received is kept and continued next time.
    """
    if _complete(item):
        on_bytes(item.path.stat().st_size)
        return item.path
    item.path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(item.part) as part, httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client:
        if _complete(item):  # another process has got it meanwhile
            item.part.unlink(missing_ok=True)
            on_bytes(item.path.stat().st_size)
            return item.path
        for tried in range(1, TRIES + 1):
            try:
                _receive(client, item, part, on_bytes, stop or threading.Event())
                break
            except (httpx.HTTPError, Broken) as error:
                if tried == TRIES or (isinstance(error, Broken) and error.final):
                    reason = str(error) or type(error).__name__
                    raise SetupError(f"{item.url} could not be fetched: {reason}.", "The same command continues.") from error
                time.sleep(PAUSE_SECONDS * 2 ** (tried - 1))
        item.etag.unlink(missing_ok=True)
        item.part.replace(item.path)
    return item.path


def download_all(
    items: Sequence[Download], on_bytes: OnBytes = nothing, on_file: Callable[[Download], None] = lambda item: None
) -> list[SetupError]:
    """Get many files, a few at a time; returns what could not be downloaded, after everything else is there."""
    failures: list[SetupError] = []
    stop = threading.Event()
    with ThreadPoolExecutor(PARALLEL, "fetch") as threads:
        waiting = {threads.submit(download, item, on_bytes, stop=stop): item for item in items}
        try:
            for future in as_completed(waiting):
                error = future.exception()
                if isinstance(error, SetupError):
                    failures.append(error)
                elif error is not None:
                    raise error
                on_file(waiting[future])
        except BaseException:  # Ctrl-C: the transfers under way stop at the next piece
            stop.set()
            for future in waiting:
                future.cancel()
            raise
    return failures


def require_space(folder: Path, needed: int) -> None:
    """Make sure before a long download that its result will fit.

    Raises:
        SetupError: it will not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise SetupError(
            f"{folder} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed.",
            "Free some space, or set AGENTLAB_CACHE to a folder on a bigger disk.",
        )


def sha256_of(path: Path, on_bytes: OnBytes = nothing) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            on_bytes(len(piece))
    return digest.hexdigest()


# -- one file ----------------------------------------------------------------------------------------------------------------------
def _complete(item: Download) -> bool:
    return item.path.is_file() and (item.size is None or item.path.stat().st_size == item.size)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[BinaryIO]:
    """The file, open for reading and writing, and ours alone; the kernel lets go of it when a process dies."""
    while True:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.fstat(file.fileno()).st_ino == path.stat().st_ino:  # not renamed while we waited
                yield file
                return


def _receive(client: httpx.Client, item: Download, part: BinaryIO, on_bytes: OnBytes, stop: threading.Event) -> None:
    """One try, from where the last one ended; when it returns the part is complete and right."""
    etag = item.etag.read_text() if item.etag.exists() else ""
    have = part.seek(0, os.SEEK_END) if etag else 0
    headers = {"Range": f"bytes={have}-", "If-Range": etag} if have else {}
    with client.stream("GET", item.url, headers=headers | {"Accept-Encoding": "identity"}) as answer:
        if answer.status_code == 416:  # nothing is left to get, or the part is not of this file
            _settle(item, part, _total(answer), None)
            on_bytes(have)
            return
        if answer.status_code not in (200, 206):
            gone = 400 <= answer.status_code < 500 and answer.status_code not in (408, 425, 429)
            raise Broken(f"HTTP {answer.status_code}", final=gone)
        if answer.status_code == 200:
            have = 0
            part.truncate(0)
        size, digest = _promised(answer, have)
        item.etag.write_text(answer.headers.get("etag", ""))
        on_bytes(have)
        done = have
        try:
            for piece in answer.iter_raw():  # as it comes: what a buffer holds is lost when the transfer breaks
                part.write(piece)
                done += len(piece)
                on_bytes(len(piece))
                if stop.is_set():
                    raise Broken("stopped", final=True)
        except (httpx.HTTPError, Broken):
            on_bytes(-done)  # the next try counts what is there
            raise
        finally:
            part.flush()
    try:
        _settle(item, part, size, digest)
    except Broken:
        on_bytes(-done)
        raise


def _promised(answer: httpx.Response, have: int) -> tuple[int | None, str | None]:
    """Size and SHA-256 of the whole file, as far as the server says; Hugging Face says both before it redirects."""
    size: int | None = None
    if answer.status_code == 206:
        size = _total(answer)
    elif "content-length" in answer.headers and "content-encoding" not in answer.headers:
        size = have + int(answer.headers["content-length"])
    digest = None
    for step in (*answer.history, answer):
        linked = step.headers.get("x-linked-etag", "").strip('"')
        digest = linked if SHA256.fullmatch(linked) else digest
        if step.headers.get("x-linked-size", "").isdecimal():
            size = int(step.headers["x-linked-size"])
    return size, digest


def _total(answer: httpx.Response) -> int | None:
    """The size that ``Content-Range: bytes 5-9/10`` (or ``*/10``) ends in."""
    total = answer.headers.get("content-range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None


def _settle(item: Download, part: BinaryIO, size: int | None, digest: str | None) -> None:
    """Check a finished part.  One that is too short is continued; one that is wrong is started over."""
    have = part.seek(0, os.SEEK_END)
    expected = item.size if item.size is not None else size
    if expected is not None and have < expected:
        raise Broken(f"it ended after {have} of {expected} bytes")
    wanted = item.sha256 or digest
    found = sha256_of(item.part) if wanted and have == (expected or have) else None
    if (expected is not None and have > expected) or (found is not None and found != wanted):
        part.truncate(0)
        item.etag.unlink(missing_ok=True)
        what = (
            f"{have} bytes instead of {expected}"
            if expected is not None and have != expected
            else "another SHA-256 than it should have"
        )
        raise Broken(f"it has {what}")

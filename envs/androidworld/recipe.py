"""The base image from pinned inputs: what is downloaded, how it is checked, how it is built (``dockerfiles/androidworld/base``)."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from envs.androidworld import tasks
from envs.benchmark import Watcher
from envs.containers.engine import DOCKERFILES, build_folder
from envs.download import Download, cache_of, download
from envs.errors import SetupError

BASE_IMAGE = "agentlab/androidworld-base"
FOLDER = "androidworld/base"
SOURCE = "android_world.tar.gz"
SOURCE_TREE = "e7c210bac979293ad7c2ba0421ae2606064c87d2"
"""Git's own digest of upstream's files at the pinned revision: an archive of them is repacked now and then, with the same content."""
RECIPE_FILES = ("Dockerfile", "constraints.txt", "build-requirements.txt", "pixel_6.ini")


@dataclass(frozen=True)
class Input:
    """A file that the base image is made of.

    Attributes:
        name: What the Dockerfile calls it.
        url: Where it is published.
        size: Bytes, if known beforehand.
        check: Raises ValueError if a file is not the pinned one.
    """

    name: str
    url: str
    size: int | None
    check: Callable[[Path], None]


def sha1_is(wanted: str) -> Callable[[Path], None]:
    """Google publishes SHA-1 digests of its archives (in ``repository2-3.xml`` and ``sys-img2-3.xml``)."""

    def check(path: Path) -> None:
        digest = hashlib.sha1(usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        if digest.hexdigest() != wanted:
            raise ValueError(f"its SHA-1 is {digest.hexdigest()}, not {wanted}")

    return check


def tree_is(wanted: str) -> Callable[[Path], None]:
    """The files in an archive (below its one folder) are those of a Git tree."""

    def check(path: Path) -> None:
        try:
            found = git_tree(path)
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ValueError(f"it is not an archive ({error})") from error
        if found != wanted:
            raise ValueError(f"its files are the Git tree {found}, not {wanted}")

    return check


EMULATOR_SHA1, IMAGE_SHA1 = "e3f5d94d29951964cbcdd09e2950d9a674664ac8", "966eadeb61cd888a79477851e51349eed103e5c8"
GOOGLE = "https://dl.google.com/android/repository"
INPUTS = (
    Input("emulator.zip", f"{GOOGLE}/emulator-linux_x64-10871397.zip", 252_025_229, sha1_is(EMULATOR_SHA1)),  # 33.1.20
    Input("system-image.zip", f"{GOOGLE}/sys-img/google_apis/x86_64-33_r15.zip", 1_545_118_291, sha1_is(IMAGE_SHA1)),
    Input(
        SOURCE, f"https://codeload.github.com/google-research/android_world/tar.gz/{tasks.revision()}", None, tree_is(SOURCE_TREE)
    ),
)


Files = dict[tuple[str, ...], tuple[str, bytes]]
"""Path below the tree -> (mode, digest), as Git has them."""


def git_tree(archive: Path) -> str:
    """Git's digest of the files in a tar archive, without the one folder that all of them lie in."""
    files: Files = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = tuple(part for part in Path(member.name).parts if part != ".")[1:]
            if parts and member.issym():
                files[parts] = "120000", _git_object("blob", member.linkname.encode())
            elif parts and (content := tar.extractfile(member)) is not None:
                files[parts] = "100755" if member.mode & 0o100 else "100644", _git_object("blob", content.read())
    return _tree_digest(files).hex()


def _git_object(kind: str, data: bytes) -> bytes:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data, usedforsecurity=False).digest()


def _tree_digest(files: Files) -> bytes:
    entries: dict[str, tuple[str, bytes]] = {}
    for folder in {path[0] for path in files if len(path) > 1}:
        below = {path[1:]: entry for path, entry in files.items() if path[0] == folder}
        entries[f"{folder}/"] = "40000", _tree_digest(below)  # Git sorts a folder as if its name ended so
    entries |= {path[0]: entry for path, entry in files.items() if len(path) == 1}
    parts = [f"{mode} {name.rstrip('/')}\0".encode() + digest for name, (mode, digest) in sorted(entries.items(), key=_bytes)]
    return _git_object("tree", b"".join(parts))


def _bytes(entry: tuple[str, tuple[str, bytes]]) -> bytes:
    return entry[0].encode()


def inputs_dir() -> Path:
    """Where the inputs are kept."""
    return cache_of("androidworld") / "base"


def fetch_inputs(watch: Watcher, folder: Path | None = None) -> Path:
    """Download what is missing, continue interrupted downloads, and check everything.

    Raises:
        SetupError: a file is unavailable, or is not the pinned one.
    """
    folder = folder or inputs_dir()
    for number, one in enumerate(INPUTS, start=1):
        path = folder / one.name
        size = f", {one.size / 1e6:,.0f} MB" if one.size else ""
        watch.say(f"Input {number} of {len(INPUTS)}: {one.url}{size}{' (is here)' if path.is_file() else ''}")
        download(Download(one.url, path, one.size), watch.begin(one.name, one.size))
        try:
            one.check(path)
        except ValueError as error:
            path.unlink()
            hint = f"The same command tries again. If it stays so, put the right file there by hand: {path}."
            raise SetupError(f"{one.url} is not the pinned file: {error}.", hint) from error
    return folder


def build_base(watch: Watcher, folder: Path | None = None, *, tag: str = BASE_IMAGE, target: str = "") -> str:
    """Build the base image from its inputs and return its id; what is built already is taken from the engine's cache.

    Args:
        watch: Who is told.
        folder: The inputs; those of :func:`fetch_inputs` by default.
        tag: Of the image.
        target: A stage of the Dockerfile, e.g. ``python``.

    Raises:
        SetupError: the Dockerfile is not part of this installation.
        InfrastructureError: the build failed.
    """
    folder = folder or inputs_dir()
    recipe = DOCKERFILES / FOLDER
    if not (recipe / "Dockerfile").is_file():
        raise SetupError(
            f"There is no {recipe}.", "Dockerfiles are in the source tree: install with `pip install -e .` from a clone."
        )
    for name in RECIPE_FILES:
        shutil.copyfile(recipe / name, folder / name)
    (folder / "digests.sha1").write_text(f"{EMULATOR_SHA1}  emulator.zip\n{IMAGE_SHA1}  system-image.zip\n")
    return build_folder(folder, tag, watch.say, target=target)

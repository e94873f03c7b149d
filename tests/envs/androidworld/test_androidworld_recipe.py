"""The base image's recipe: every input pinned by name and digest, downloads that continue, a file that is another one refused."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import servers

from envs.androidworld import recipe, setup, tasks
from envs.benchmark import Watcher
from envs.errors import SetupError

BASE = servers.GUEST / "base"
DOCKERFILE = (BASE / "Dockerfile").read_text()


def test_nothing_of_the_recipe_floats():
    froms = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert froms == ["${DEBIAN}", "${DEBIAN}", "python"] and "ARG DEBIAN=debian:bookworm-slim" in DOCKERFILE
    assert not re.search(r"openjdk|curl|wget|https?://", re.sub(r"^#.*$", "", DOCKERFILE, flags=re.MULTILINE))
    for name in ("constraints.txt", "build-requirements.txt"):
        pins = [line for line in (BASE / name).read_text().splitlines() if line and not line.startswith("#")]
        assert pins and all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), name
    built_with = dict(line.split("==") for line in (BASE / "build-requirements.txt").read_text().splitlines() if "==" in line)
    assert int(built_with["setuptools"].split(".")[0]) < 81, "its setup.py imports pkg_resources"
    assert {one.name for one in recipe.INPUTS} >= {"emulator.zip", "system-image.zip", recipe.SOURCE}
    assert tasks.revision() in next(one.url for one in recipe.INPUTS if one.name == recipe.SOURCE)


def test_everything_that_the_recipe_copies_is_an_input_or_lies_beside_it():
    given = {one.name for one in recipe.INPUTS} | set(recipe.RECIPE_FILES) | {"digests.sha1"}
    copied = [name for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for name in line.split()[:-1]]
    assert copied and set(copied) <= given and all((BASE / name).is_file() for name in recipe.RECIPE_FILES)


def test_gits_digest_of_an_archive_is_gits(tmp_path):
    repository = tmp_path / "repository"
    (repository / "a" / "b").mkdir(parents=True)
    for name, text in {"a/b/c.txt": "1", "a-x": "2", "a.x": "3", "z/deep/er/x": "", "run.sh": "#!/bin/sh"}.items():
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).write_text(text)
    (repository / "run.sh").chmod(0o755)
    (repository / "link").symlink_to("a-x")
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
        subprocess.run([*git, *command], check=True)
    wanted = subprocess.run([*git, "rev-parse", "HEAD^{tree}"], capture_output=True, text=True, check=True).stdout.strip()
    archive = tmp_path / "all.tar"
    subprocess.run([*git, "archive", "--prefix=top/", "-o", str(archive), "HEAD"], check=True)
    assert recipe.git_tree(archive) == wanted
    recipe.tree_is(wanted)(archive)
    with pytest.raises(ValueError, match="Git tree"):
        recipe.tree_is("0" * 40)(archive)
    (tmp_path / "page.html").write_text("<html>")
    with pytest.raises(ValueError, match="not an archive"):
        recipe.tree_is(wanted)(tmp_path / "page.html")


@pytest.fixture
def site(tmp_path):
    """A web server of a folder."""
    (tmp_path / "site").mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "site"))
    handler.log_message = lambda *given: None  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tmp_path / "site", f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_inputs_are_downloaded_once_checked_and_told(site, tmp_path, monkeypatch):
    folder, url = site
    data = os.urandom(300_000)
    (folder / "big.zip").write_bytes(data)
    right = recipe.Input("big.zip", f"{url}/big.zip", len(data), recipe.sha1_is(hashlib.sha1(data).hexdigest()))
    monkeypatch.setattr(recipe, "INPUTS", (right,))
    told: list[str] = []
    watch = Watcher(say=told.append)
    assert (recipe.fetch_inputs(watch, tmp_path / "here") / "big.zip").read_bytes() == data
    (folder / "big.zip").unlink()
    recipe.fetch_inputs(watch, tmp_path / "here")
    assert "Input 1 of 1" in told[0] and "(is here)" in told[1]
    wrong = recipe.Input("big.zip", f"{url}/big.zip", len(data), recipe.sha1_is("0" * 40))
    monkeypatch.setattr(recipe, "INPUTS", (wrong,))
    with pytest.raises(SetupError, match="not the pinned file") as caught:
        recipe.fetch_inputs(watch, tmp_path / "here")
    assert "by hand" in caught.value.hint and not (tmp_path / "here" / "big.zip").exists()


def test_fetch_builds_from_the_inputs_on_and_a_base_of_ones_own_needs_none(monkeypatch):
    done = []
    monkeypatch.setattr(setup, "connect", lambda: None)
    monkeypatch.setattr(setup, "require_image", lambda *given: done.append(("require", given[1])))
    monkeypatch.setattr(setup, "free_gb", lambda: 100.0)
    monkeypatch.setattr(recipe, "fetch_inputs", lambda watch: done.append("inputs") or Path("/inputs"))
    monkeypatch.setattr(recipe, "build_base", lambda watch, folder: done.append(("base", str(folder))))
    monkeypatch.setattr(setup, "build_image", lambda *given, arguments: done.append(("ours", arguments["BASE"])))
    setup.fetch(Watcher(), prepare=False)
    assert done == ["inputs", ("base", "/inputs"), ("ours", recipe.BASE_IMAGE)]
    done.clear()
    setup.fetch(Watcher(), base="android_world:latest", prepare=False)
    assert done == [("require", "android_world:latest"), ("ours", "android_world:latest")]

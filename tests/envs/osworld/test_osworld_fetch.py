"""``agentlab fetch osworld`` against a local server: the task set, the files, the disk; and that stopping it loses nothing."""

import hashlib
import io
import json
import tarfile
import zipfile

import pytest
from fileserver import serve

from envs import download as downloads
from envs.benchmark import Watcher
from envs.errors import SetupError
from envs.osworld import fetch, upstream
from envs.osworld.fetch import fetch_disk, fetch_files, fetch_tasks, files_of
from envs.osworld.jobs import NeededFile
from envs.osworld.suite import OSWorldSuite

TASK = {
    "id": "t-1",
    "instruction": "Do it.",
    "config": [{"type": "download", "parameters": {"files": [{"url": "http://x/in.txt", "path": "/home/user/in.txt"}]}}],
    "evaluator": {
        "func": "compare_text_file",
        "result": {"type": "vm_file", "path": "/home/user/in.txt", "dest": "in.txt"},
        "expected": {"type": "cloud_file", "path": "http://x/gold.txt", "dest": "gold.txt"},
    },
}
INDEX = json.dumps({"os": ["t-1"]})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AGENTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    digest = hashlib.sha256(INDEX.encode()).hexdigest()
    monkeypatch.setattr(upstream, "INDEX_SHA256", {"test_all": digest, "test_nogdrive": digest})
    return tmp_path / "cache" / "osworld"


def archive(**changed: str | None) -> bytes:
    """A repository as GitHub packs it."""
    files = {
        "evaluation_examples/test_all.json": INDEX,
        "evaluation_examples/test_nogdrive.json": INDEX,
        "evaluation_examples/examples/os/t-1.json": json.dumps(TASK),
        "desktop_env/evaluators/__init__.py": "",
        "mm_agents/agent.py": "",
        "../../escaped": "no",
    } | changed
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, text in files.items():
            if text is not None:
                member = tarfile.TarInfo(f"OSWorld-abc/{name}")
                member.size = len(text.encode())
                tar.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def test_the_task_set_is_unpacked_and_becomes_a_suite(cache):
    lines = []
    with serve({"/a": archive()}) as files:
        folder = fetch_tasks(Watcher(say=lines.append), archive=files.url + "/a")
        fetch_tasks(Watcher(), archive=files.url + "/a")
        assert len(files.asked) == 1, "what is there is not fetched again"
    assert sorted(p.name for p in folder.iterdir()) == ["desktop_env", "evaluation_examples"]
    assert not list(cache.parent.parent.glob("**/escaped"))
    assert OSWorldSuite("test_all").task_names() == ["os/t-1"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"evaluation_examples/test_all.json": "{}"}, "another SHA-256"),
        ({"evaluation_examples/examples/os/t-1.json": None}, "not an OSWorld task"),
        ({"evaluation_examples/examples/os/t-1.json": json.dumps(TASK | {"id": "t-2"})}, "says that it is t-2"),
        ({"desktop_env/evaluators/__init__.py": None}, "no evaluators"),
    ],
)
def test_another_task_set_is_refused_and_nothing_of_it_stays(cache, changed, reason):
    with serve({"/a": archive(**changed)}) as files, pytest.raises(SetupError, match=reason):
        fetch_tasks(Watcher(), archive=files.url + "/a")
    assert list(cache.iterdir()) == []


def test_a_torn_archive_is_refused(cache):
    with serve({"/a": archive()[:-200]}) as files, pytest.raises(SetupError, match="not OSWorld's repository"):
        fetch_tasks(Watcher(), archive=files.url + "/a")
    assert list(cache.iterdir()) == []


def test_files_of_tasks_are_kept_under_their_address_and_failures_are_named(cache, tmp_path):
    (tmp_path / "os").mkdir()
    (tmp_path / "os" / "t-1.json").write_text(json.dumps(TASK))
    found = files_of(OSWorldSuite(str(tmp_path)))
    assert [file.url for file in found] == ["http://x/in.txt", "http://x/gold.txt"]
    lines = []
    with serve({"/gold.txt": b"gold"}) as files:
        with pytest.raises(SetupError, match="1 of 2 files could not be fetched"):
            fetch_files(found, Watcher(say=lines.append), address=lambda url: url.replace("http://x", files.url))
        assert any("/in.txt" in line and "404" in line for line in lines)
        assert upstream.cached_file("http://x/gold.txt").read_bytes() == b"gold"
        files.content["/in.txt"] = b"in"
        files.asked.clear()
        fetch_files(found, Watcher(), address=lambda url: url.replace("http://x", files.url))
        assert [path for path, _ in files.asked] == ["/in.txt"], "only what failed is tried again"


def test_addresses_are_pinned_and_mirrored(monkeypatch):
    url = "https://huggingface.co/datasets/xlangai/ubuntu_osworld_file_cache/resolve/main/os/x/y.txt"
    assert upstream.pinned(url) == url.replace("main", upstream.FILE_CACHE_REVISION)
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/")
    assert upstream.pinned(url).startswith("https://mirror.example/datasets/xlangai/")
    assert upstream.pinned("https://elsewhere.org/x") == "https://elsewhere.org/x"
    assert NeededFile(url, "y").kept.name == upstream.cached_file(url).name, "a mirror does not change the key"


def test_the_disk_is_unpacked_checked_and_its_archive_removed(cache, monkeypatch):
    monkeypatch.setattr(fetch, "require_space", lambda folder, needed: None)
    disk = bytes(100_000)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("Ubuntu.qcow2", disk)
    body = packed.getvalue()
    with serve({"/disk.zip": body}) as files:
        known = {"url": files.url + "/disk.zip", "zip_bytes": len(body), "zip_sha256": hashlib.sha256(body).hexdigest()}
        with pytest.raises(SetupError, match="SHA-256"):
            fetch_disk(Watcher(), **(known | {"zip_sha256": "0" * 64}), disk_bytes=len(disk))
        with pytest.raises(SetupError, match="instead of 7"):
            fetch_disk(Watcher(), **known, disk_bytes=7)
        with pytest.raises(SetupError, match="holds a disk with another SHA-256"):
            fetch_disk(Watcher(), **known, disk_bytes=len(disk))
        known["disk_sha256"] = hashlib.sha256(disk).hexdigest()
        assert fetch_disk(Watcher(), **known, disk_bytes=len(disk)).read_bytes() == disk
        assert fetch_disk(Watcher(), **known, disk_bytes=len(disk)) == upstream.disk_file()
    assert [p.name for p in cache.iterdir() if p.is_file()] == ["Ubuntu.qcow2"]


def test_a_disk_that_does_not_fit_is_not_begun(monkeypatch):
    monkeypatch.setattr(downloads, "SPARE_BYTES", 10**18)
    with pytest.raises(SetupError, match="GB are needed"):
        fetch_disk(Watcher(), url="http://127.0.0.1:1/nothing")


def test_pip_that_fails_is_an_error_of_one_line(cache, monkeypatch, tmp_path):
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("no-such-distribution-of-agentlab==99\n")
    monkeypatch.setattr(upstream, "REQUIREMENTS", requirements)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SetupError, match="pip could not install"):
        fetch.build_grader(Watcher())
    with pytest.raises(SetupError, match="grader is not on this machine"):
        upstream.grader_python()

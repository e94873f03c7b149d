"""Downloads against a server that breaks off, lies and forgets."""

import hashlib
import threading

import pytest
from fileserver import serve

from envs import download as downloads
from envs.download import Download, download, download_all
from envs.errors import SetupError

BODY = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)


@pytest.fixture
def files():
    with serve({"/a": BODY, "/b": b"small"}) as made:
        yield made


def test_a_file_is_fetched_once(files, tmp_path):
    item = Download(files.url + "/a", tmp_path / "deep" / "a")
    counted = []
    assert download(item, counted.append).read_bytes() == BODY
    assert sum(counted) == len(BODY)
    download(item)
    assert len(files.asked) == 1
    assert [p.name for p in item.path.parent.iterdir()] == ["a"], "no part and no note is left"


def test_a_torn_transfer_goes_on_where_it_broke_off(files, tmp_path):
    files.cut["/a"] = [300_000, 100_000]
    counted = []
    path = download(Download(files.url + "/a", tmp_path / "a"), counted.append)
    assert path.read_bytes() == BODY
    assert [asked for _, asked in files.asked] == ["", "bytes=300000-", "bytes=400000-"]
    assert sum(counted) == len(BODY)


def test_what_a_killed_process_left_is_continued(files, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TRIES", 1)
    files.cut["/a"] = [500_000]
    item = Download(files.url + "/a", tmp_path / "a", size=len(BODY))
    with pytest.raises(SetupError, match="could not be fetched"):
        download(item)
    assert not item.path.exists() and item.part.stat().st_size == 500_000
    assert download(item).read_bytes() == BODY
    assert files.asked[-1] == ("/a", "bytes=500000-")


def test_the_parts_of_two_versions_are_never_put_together(files, tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TRIES", 1)
    files.cut["/a"] = [500_000]
    item = Download(files.url + "/a", tmp_path / "a")
    with pytest.raises(SetupError):
        download(item)
    files.content["/a"] = bytes(reversed(BODY))
    assert download(item).read_bytes() == bytes(reversed(BODY))


def test_without_an_etag_a_torn_file_is_begun_anew(files, tmp_path):
    files.etags["/a"] = ""
    files.cut["/a"] = [10]
    assert download(Download(files.url + "/a", tmp_path / "a")).read_bytes() == BODY
    assert [asked for _, asked in files.asked] == ["", ""]


def test_a_part_that_is_already_whole_is_checked_and_kept(files, tmp_path):
    item = Download(files.url + "/a", tmp_path / "a")
    item.part.write_bytes(BODY)
    item.etag.write_text(f'"{hashlib.md5(BODY).hexdigest()}"')
    assert download(item).read_bytes() == BODY


@pytest.mark.parametrize("wrong", [{"sha256": "0" * 64}, {"size": 7}])
def test_wrong_bytes_are_thrown_away(files, tmp_path, wrong):
    item = Download(files.url + "/a", tmp_path / "a", **wrong)
    with pytest.raises(SetupError, match=r"SHA-256|instead of 7"):
        download(item)
    assert not item.path.exists() and item.part.stat().st_size == 0


def test_hashes_that_hugging_face_announces_are_checked(files, tmp_path):
    files.headers["/a"] = {"X-Linked-Etag": '"' + "0" * 64 + '"', "X-Linked-Size": str(len(BODY))}
    with pytest.raises(SetupError, match="SHA-256"):
        download(Download(files.url + "/a", tmp_path / "a"))
    files.headers["/a"]["X-Linked-Etag"] = f'"{hashlib.sha256(BODY).hexdigest()}"'
    assert download(Download(files.url + "/a", tmp_path / "a")).read_bytes() == BODY


def test_what_is_not_there_is_not_asked_for_again_but_a_busy_server_is(files, tmp_path):
    with pytest.raises(SetupError, match="HTTP 404"):
        download(Download(files.url + "/nothing", tmp_path / "x"))
    assert len(files.asked) == 1
    files.status["/b"] = [503, 429]
    assert download(Download(files.url + "/b", tmp_path / "b")).read_bytes() == b"small"


def test_of_many_files_all_that_can_be_had_are_there(files, tmp_path):
    items = [Download(files.url + name, tmp_path / name[1:]) for name in ("/a", "/gone", "/b")]
    failures = download_all(items)
    assert [error.message.split()[0] for error in failures] == [files.url + "/gone"]
    assert (tmp_path / "a").is_file() and (tmp_path / "b").is_file()


def test_two_at_a_time_fetch_one_file_once(files, tmp_path):
    item = Download(files.url + "/a", tmp_path / "a")
    threads = [threading.Thread(target=download, args=(item,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files.asked) == 1 and item.path.read_bytes() == BODY
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_a_full_disk_is_said_beforehand(tmp_path):
    with pytest.raises(SetupError, match="AGENTLAB_CACHE"):
        downloads.require_space(tmp_path, 10**18)

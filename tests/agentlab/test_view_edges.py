"""What a person hears where the viewer cannot start, cannot read, or is asked for what cannot be."""

import socket

import pytest
from in_process import agentlab
from made_runs import Made, make_run, task
from starlette.testclient import TestClient

from agentlab.replay.masks import parse_mask
from agentlab.view.server import make_app
from envs.androidworld.addresses import parse_address as emulators
from envs.errors import UsageError
from envs.osworld.address import parse_address as guest

ENDLESS = "9" * 5000
"""Python makes an error of so many digits."""


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run", [(task("a"), [Made(True)])])


def test_numbers_of_thousands_of_digits_are_no_numbers(run):
    client = TestClient(make_app([run]), base_url="http://127.0.0.1")
    key = client.get("/api/index.json").json()["runs"][0]["id"]
    answer = client.get(f"/api/{key}/a_1/{ENDLESS}/000.webp")
    assert answer.status_code == 404 and "not the number of an attempt" in answer.text
    version = client.get(f"/api/{key}.json").json()["version"].partition(".")[0]
    assert client.get(f"/api/{key}.json", params={"since": f"{version}.{ENDLESS}"}).json()["whole"]
    for read, text in ((parse_mask, f"1,1,{ENDLESS},1"), (emulators, f"h:{ENDLESS}"), (guest, f"h:{ENDLESS}")):
        with pytest.raises(UsageError):
            read(text)


def test_a_port_in_use_is_said_before_any_address(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = agentlab("view", run, "--port", port)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"Port {port} of 127.0.0.1 cannot be used: Address already in use." in done.stderr and "--port" in done.stderr


def test_an_export_says_what_cannot_be_read_and_fails_where_nothing_can(run, tmp_path):
    broken = make_run(tmp_path / "broken", [(task("a"), [Made(True)])])
    (broken / "config.json").write_text("{")
    done = agentlab("view", broken, "--export", tmp_path / "none")
    assert (done.returncode, done.stdout) == (4, "") and "config.json is corrupt" in done.stderr
    assert not (tmp_path / "none").exists()
    done = agentlab("view", broken, run, "--export", tmp_path / "some")
    assert done.returncode == 0 and done.stdout.startswith("1 sessions written")
    assert done.stderr.startswith("Left out: ") and "config.json is corrupt" in done.stderr

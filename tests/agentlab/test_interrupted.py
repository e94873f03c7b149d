"""Ctrl-C at awkward moments: while libraries are imported, and while an environment's own programs, which get it too, are starting."""

import sys
import threading
from types import ModuleType

import pytest
from small_world import DoorPolicy, door

from agentlab import __main__ as entry
from agentlab.disk.store import RunStore
from agentlab.run.resolve import resolve
from agentlab.run.session import Interrupted, Session
from envs.errors import InfrastructureError, SetupError
from envs.miniwob.browser import Browser


class Dying:
    """A slot whose environment dies while it starts, as it does on Ctrl-C."""

    def __init__(self, error, stop=None):
        self.error, self.stop = error, stop

    def get(self, task):
        if self.stop is not None:
            threading.Timer(0.05, self.stop.set).start()  # the signal's handler runs a moment later
        raise self.error

    def renew(self): ...
    def idle(self): ...
    def close(self): ...


@pytest.fixture
def session(tmp_path):
    config = resolve({"attempts": 2, "adapt": {"preset": "rosa"}})
    store, stop = RunStore.open(tmp_path / "run", config.to_json()), threading.Event()

    def make(error, *, interrupted):
        envs = Dying(error, stop if interrupted else None)
        own = store.session(door(1).id)
        return Session(door(1), config=config, policy=DoorPolicy(), words=None, envs=envs, store=own, stop=stop, memory=dict)

    yield make
    store.close()


@pytest.mark.parametrize("error", [SetupError("It did not start."), InfrastructureError("It died.", component="browser")])
def test_what_does_not_start_because_the_run_is_stopped_is_no_failure(session, error):
    with pytest.raises(Interrupted):
        session(error, interrupted=True).run(lambda row: None)


def test_what_does_not_start_otherwise_is_said(session):
    with pytest.raises(SetupError, match="did not start"):
        session(SetupError("It did not start."), interrupted=False).run(lambda row: None)


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Exception("Connection closed while reading from the driver"), InfrastructureError),  # as Playwright raises it
        (ValueError("a mistake of ours"), ValueError),
    ],
)
def test_a_browser_whose_driver_dies_while_it_starts_is_a_failure_of_the_machinery(monkeypatch, raised, expected):
    async def launch(self):
        raise raised

    monkeypatch.setattr(Browser, "_launch", launch)
    with pytest.raises(expected) as failure:
        Browser.acquire(sys.executable)
    if expected is InfrastructureError:
        assert failure.value.component == "browser" and "did not start: Connection closed" in failure.value.message


def test_ctrl_c_while_libraries_are_imported_is_quiet(monkeypatch, capsys):
    class Importing(ModuleType):
        def __getattr__(self, name):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "agentlab.cli.app", Importing("agentlab.cli.app"))
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 130 and capsys.readouterr().err == ""

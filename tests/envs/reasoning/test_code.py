"""Hostile code answers against the real Docker Engine: each ends as a failed answer, and nothing outside its container is touched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from envs import containers
from envs.containers.engine import connect
from envs.errors import InfrastructureError, SetupError
from envs.reasoning.code import IMAGE, Sandbox, grade_code, program_of
from envs.reasoning.items import Item

ADD = Item(
    question="Complete.", kind="code", entry_point="add", prefix='import math\n\ndef add(a, b):\n    """The sum."""\n',
    tests="assert add(1, 2) == 3\nassert add(0, 0) == 0, 'zero'",
)  # fmt: skip

RIGHT = {
    "fenced": "Here it is:\n```python\ndef add(a, b):\n    return a + b\n```\nIt adds.",
    "plain": "def add(a, b):\n    return a + b",
    "body": "    return a + b",
    "with its imports": "```py\ndef add(a, b):\n    return math.floor(a + b)\n```",
    "the last that defines it": (
        "```python\ndef add(a, b): return 0\n```\nBetter:\n```\ndef add(a, b): return a + b\n```\n```\nprint(1)\n```"
    ),
    "after a thought": "<think>```python\ndef add(a, b): return 0\n```</think>\n```python\ndef add(a, b): return a + b\n```",
    "odd characters": "def add(a, b):\n    return a + b  # \u00fc \ud800 \x00",
    "prints a lot": "print('x' * 100_000)\ndef add(a, b): return a + b",
}  # fmt: skip

HOSTILE = {
    "wrong": "def add(a, b): return a - b",
    "leaves with success": "import sys; sys.exit(0)",
    "leaves at once": "import os; os._exit(0)",
    "claims to have passed": "print('passed'); import sys; print(sys.argv); sys.exit(0)",
    "fork bomb": "import os\nwhile True: os.fork()",
    "thread bomb": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
    "endless output": "while True: print('x' * 1000)",
    "endless output of a child": (
        "import os\nif os.fork() == 0:\n    os.setsid()\n    while True: print('y' * 99)\ndef add(a, b): return a + b"
    ),
    "never ends": "while True: pass",
    "memory": "x = []\nwhile True: x.append(' ' * 10**6)",
    "disk": "f = open('/tmp/f', 'wb')\nwhile True: f.write(b'0' * 10**6)",
    "network": "import socket; socket.create_connection(('1.1.1.1', 53), 3)",
    "names": "import socket; socket.gethostbyname('example.org')",
    "the host's loopback": "import socket; socket.create_connection(('127.0.0.1', 22), 3)",
    "the engine's socket": "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/var/run/docker.sock')",
    "the host's files": "import os; assert False, os.listdir('/root')",
    "writes into the system": "open('/usr/x', 'w')",
    "mounts": "import ctypes; assert ctypes.CDLL(None).mount(b'none', b'/mnt', b'tmpfs', 0, None) == 0",
    "becomes root": "import os; os.setuid(0)",
    "kills everything": "import os, signal; os.kill(-1, 9)",
    "no code": "I would add the two numbers.",
    "nothing": "",
}  # fmt: skip


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    try:
        made = Sandbox("test-sandbox", seconds=8)
    except SetupError as error:
        pytest.skip(str(error))
    if not connect().images.list(IMAGE):
        pytest.skip("needs the image: agentlab setup reasoning")
    yield made
    made.close()


pytestmark = pytest.mark.docker


@pytest.mark.parametrize("reply", RIGHT.values(), ids=RIGHT)
def test_right_answers_pass(sandbox: Sandbox, reply: str) -> None:
    verdict = grade_code(ADD, reply, sandbox)
    assert (verdict.score, verdict.hint) == (1.0, "")


def test_hostile_answers_fail_and_touch_nothing(sandbox: Sandbox) -> None:
    before = set(Path("/usr").iterdir())
    verdicts = {}

    def grade(name: str, reply: str) -> None:
        verdicts[name] = grade_code(ADD, reply, sandbox)

    for names in (list(HOSTILE)[at : at + 4] for at in range(0, len(HOSTILE), 4)):
        threads = [threading.Thread(target=grade, args=(name, HOSTILE[name])) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {name: verdict.score for name, verdict in verdicts.items()} == dict.fromkeys(HOSTILE, 0.0)
    assert verdicts["never ends"].hint.startswith("it had not ended after")
    assert verdicts["endless output"].hint == "it wrote too much"
    assert "assert add(1, 2) == 3" in verdicts["wrong"].hint  # what a user would be shown: the failing test
    assert "unreachable" in verdicts["network"].hint and "Read-only" in verdicts["writes into the system"].hint
    assert not [row for row in containers.ls() if row.owner.run == "test-sandbox"]  # every one was removed
    assert set(Path("/usr").iterdir()) == before and not Path("/tmp/f").exists()


def test_what_the_machinery_breaks_is_no_answer(sandbox: Sandbox) -> None:
    with pytest.raises(SetupError, match="agentlab setup reasoning"):
        Sandbox("test-sandbox", image="agentlab/no-such-image").run("", "")
    broken = Sandbox("test-sandbox", image="debian:bookworm-slim")  # has no Python
    with pytest.raises(InfrastructureError, match="did not start"):
        broken.run("", "")
    broken.close()


def test_nothing_to_run() -> None:
    assert program_of(ADD, "<think>def add(a, b): return a + b") is None
    assert program_of(ADD, "  \n") is None

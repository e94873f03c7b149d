"""What reading a reply may cost, and what it may raise, whatever a model writes."""

import contextlib
import gc
import inspect
import random
import re
import subprocess
import sys
import time

import pytest
from test_families import NAMES, ODD, OFFICIAL, SCREEN, call, code, read
from whole_actions import assert_whole

from envs.errors import InvalidActionError
from policies.families.registry import families
from policies.families.reply import MAX_CHARACTERS, Frame
from policies.families.session import read_reply

PIECES = [
    "\n", " ", "'", '"', "(", "[", "{", "<", "1,", "a", "*", "#", "\\'", "Action:\n", "click(", "click(start_box='", "type(content='a', ",
    "k='a',1,", "<tool_call>", '{"name":', call('{"action": "click", "coordinate": [1, 2]}'), "```", "```python\n",
    "pyautogui.click(1,2)\n",
    "## Action:\n", "<think>", "<action>", "<action>Click(box=(1,2))</action>", "（", "“", "hotkey(key='ctrl ", "Thought: ",
]  # fmt: skip
STARTS = [
    "", "Action: click(", "Action: type(content='", "Action: type(content='a')", "<action>Type(content='", "<action>Click(box=(",
    '<tool_call>{"name":"computer_use","arguments":{"action":"type","text":"', "<tool_call>{'a':", "```python\npyautogui.write('",
    "```\nfor _ in range(2):\n ", "Thought: ", "</think>", "pyautogui.click(",
]  # fmt: skip
ENDS = ["", "x", "')", "'", "(", "\n```", "\nclick(", "</tool_call>", "}}"]


# Families whose `parse` and `split` are the same text share one parser: of each parser, the first family.
PARSERS = list(
    {inspect.getsource(known.parse) + inspect.getsource(known.split): name for name, known in reversed(families().items())}.values()
)
LONGEST = MAX_CHARACTERS - 1


def cpu_seconds(read, text):
    """What one reading takes.  Python's collector is off: what it takes depends on everything else that this process holds."""
    gc.disable()
    started = time.process_time()
    with contextlib.suppress(InvalidActionError):
        read(text)
    taken = time.process_time() - started
    gc.enable()
    return taken


def assert_linear(read, build, longest=LONGEST, unnoticed=0.1):
    """Eight times as many characters take about eight times as long (64 times, where the time is quadratic), or `unnoticed` s."""
    if (first := cpu_seconds(read, build(longest))) > unnoticed:
        short = min(cpu_seconds(read, build(longest // 8)) for _ in range(5))
        long = min(first, *(cpu_seconds(read, build(longest)) for _ in range(2)))
        assert long < unnoticed or long < 24 * short, f"{long:.2f} s for {longest} characters, {short:.3f} s for an eighth of them"


def test_a_quadratic_reader_is_told_from_a_linear_one():
    assert_linear(re.compile(r"[^x]x").findall, lambda size: "ax" * (size // 2), longest=1_000_000, unnoticed=0.005)
    with pytest.raises(AssertionError, match="an eighth of them"):
        assert_linear(re.compile(r"\n*x").search, lambda size: "\n" * size, longest=20_000, unnoticed=0.005)


@pytest.mark.parametrize("family", PARSERS)
def test_the_longest_replies_of_anything_are_read_in_linear_time(family):
    """Every piece again and again, and 40 replies that begin, go on and end in three ways."""
    known, source = families()[family], random.Random(f"long {family}")
    texts = [("Action: ", piece, "") for piece in PIECES]
    texts += [(source.choice(STARTS), source.choice(PIECES) + source.choice(["", *PIECES]), source.choice(ENDS)) for _ in range(40)]
    texts.append(("Action: type(content='a')", " ", "x"))
    for start, piece, end in texts:
        assert_linear(
            lambda text: read_reply(known, text, SCREEN, SCREEN, known.defaults, known.platforms[0]),
            lambda size, start=start, piece=piece, end=end: (start + piece * (size // len(piece)))[: size - len(end)] + end,
        )


@pytest.mark.parametrize("family", NAMES)
def test_a_million_characters_are_refused_at_once_whatever_they_say(family):
    known, frame = families()[family], Frame(*SCREEN)
    for piece in PIECES:
        text = f"Action: {piece * (1_000_000 // len(piece))}"
        with pytest.raises(InvalidActionError, match=f"at most {MAX_CHARACTERS} are read"):
            known.parse(text, frame)
    reply = read_reply(known, text, SCREEN, SCREEN, known.defaults, known.platforms[0])  # what stays of it in the record
    assert not reply.parsable and len(reply.thought) + len(reply.action_text) <= MAX_CHARACTERS


def test_loops_of_nothing_are_not_run_through():
    nested = "".join(" " * depth + "for _ in range(64):\n" for depth in range(12)) + " " * 12 + "pass"
    with pytest.raises(InvalidActionError, match="statements"):
        read("opencua", code(nested))


def test_python_warns_no_user_of_what_a_model_writes():
    script = """
from policies.families.syntax import syntax_tree
for text in ("1if 2else 3", "write('\\\\d')"):
    syntax_tree(text)
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stderr == b""


@pytest.mark.parametrize("family", NAMES)
def test_damaged_replies_are_actions_or_the_typed_error(family):
    """5,000 a parser: pieces of all languages in a row, and official replies with pieces lost and put in."""
    known, source = families()[family], random.Random(family)
    turns = 5_000 if family in PARSERS else 500  # the others differ in a few words of their calls
    official = [reply for name, reply, _ in [*OFFICIAL, *ODD] if name == family]
    frame = Frame(*SCREEN, *known.units(SCREEN, (1932, 1092), known.defaults), None, known.platforms[0])
    parsed = 0
    for turn in range(turns):
        if turn % 2:
            text = "".join(source.choice(PIECES) for _ in range(source.randint(0, 12)))
        else:
            text = source.choice(official)
            for _ in range(source.randint(1, 3)):
                cut = source.randrange(len(text) + 1)
                text = text[:cut] + source.choice(["", "", *PIECES]) + text[cut + source.randint(0, 4) :]
        known.split(text)
        try:
            actions = known.parse(text, frame).actions
        except InvalidActionError:
            continue
        parsed += 1
        assert_whole(actions)
    assert parsed > turns * 0.03

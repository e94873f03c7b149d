"""Tables of the terminal: on a narrow screen no number is cut."""

import io

import pytest
from rich.console import Console

from agentlab.replay.rescore import Rescored, sections
from agentlab.results.compare import Comparison
from agentlab.results.metrics import SessionSummary
from agentlab.results.pages import Section
from agentlab.results.tables import TerminalTable

LONG = "/home/somebody/a/path/that/goes/on/and/on/and/is/longer/than/the/screen/is/wide/result.json"


def shown(section: Section, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(TerminalTable(section))
    return console.file.getvalue().splitlines()


def compared() -> Section:
    """Two runs of ten attempts each."""
    sessions = [SessionSummary(f"t_{n}", "t", "", n + 1, n + 1, False, n > 0) for n in range(10)]
    return Comparison(["none-reasoning-s0", "rosa2-reasoning-s0"], [sessions, sessions], 10, [[]], [[]], []).sections()[0]


def learned() -> Section:
    update = {"accepted": True, **dict.fromkeys(("delta_norm2", "residual_before", "residual_after", "kl_mean"), 0.001234)}
    return sections([Rescored("click-checkboxes-large_12", 2, [-12.25], [-12.25], [-16.5], update)])[0]


@pytest.mark.parametrize("made", [compared, learned])
def test_where_a_screen_is_too_narrow_every_cell_has_a_line(made):
    section = made()
    lines = shown(section, 80)
    assert max(map(len, lines)) <= 80
    for called, *cells in section.rows:
        assert any(called in line for line in lines)
        for title, cell in zip(section.header[1:], cells, strict=True):
            assert any(title in line and cell in line for line in lines)


@pytest.mark.parametrize("made", [compared, learned])
def test_on_a_wide_screen_a_row_is_a_line(made):
    section = made()
    lines = shown(section, 250)
    assert all(any(all(cell in line for cell in row) for line in lines) for row in [section.header, *section.rows])


def test_long_texts_are_wrapped_as_before_and_nothing_of_them_is_lost():
    section = Section(
        "Failures", ("component", "failures", "last message"), [("docker[red]", "3", f"Cannot use {LONG}: no space left")]
    )
    lines = shown(section, 80)
    assert any("docker[red]" in line and "3" in line for line in lines) and max(map(len, lines)) <= 80
    assert LONG in "".join("".join(line.split("│")[3:4]).strip() for line in lines)
    assert "".join(line.strip("│ ") for line in shown(Section("Unread", ("what",), [(LONG,)]), 50)).count(LONG) == 1

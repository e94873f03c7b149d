"""Sections as tables of the terminal, which may be a narrow one."""

from __future__ import annotations

from itertools import zip_longest

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from agentlab.results.pages import Section

WORD, NAME = 16, 32
"""Letters of a word (a number, a column's title) that is not broken on a narrow screen, and of what a row is called by, which is typed
again.  Longer ones (paths, ids) may be.
"""


class TerminalTable:
    """A section's table; where the screen is too narrow for its words, a line per cell instead, beside the title of its column."""

    def __init__(self, section: Section, *, show_header: bool = True) -> None:
        self.section, self.show_header = section, show_header

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._across()
        lines = Segment.split_lines(console.render(table, options))
        wide = max(map(Segment.get_line_length, lines), default=0) > options.max_width
        yield self._down() if wide and len(self.section.header) > 2 else table

    def _across(self) -> Table:
        table = Table(title=escape(self.section.title), title_justify="left", show_header=self.show_header)
        for number, (title, *cells) in enumerate(zip_longest(self.section.header, *self.section.rows, fillvalue="")):
            longest = max(len(word) for cell in ("", title, *cells) for word in (cell.split() or [""]))
            name = max(map(len, cells), default=0)
            table.add_column(
                escape(title),
                justify="right" if number else "left",
                min_width=min(longest, WORD) if number else min(name, NAME),
                overflow="fold",
            )
        for row in self.section.rows:
            table.add_row(*(escape(cell) for cell in row))
        return table

    def _down(self) -> Table:
        name, *titles = self.section.header
        table = Table(title=escape(self.section.title), title_justify="left", show_header=self.show_header)
        for title in (escape(name), "", ""):
            table.add_column(title, overflow="fold")
        for called, *cells in self.section.rows:
            for place, (title, cell) in enumerate(zip_longest(titles, cells, fillvalue="")):
                table.add_row("" if place else escape(called), escape(title), escape(cell))
            table.add_section()
        return table

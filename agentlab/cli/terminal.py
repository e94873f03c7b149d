"""The one console of the verbs: what is printed may come from a stranger's run, and is text, never an instruction to the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from agentlab.cli.arguments import drop
from agentlab.disk.names import printable

PIPE_CLOSED = 141
"""Exit code of a program whose reader has gone (128 + SIGPIPE)."""


class Terminal(Console):
    """A console that prints no control characters but its own, and does not turn ``:name:`` into an emoji.

    Markup is taken in the texts that we write; what is not ours is passed through :func:`rich.markup.escape`, or printed with
    ``markup=False``.

    Args:
        stderr: Print there.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text, style, control) if control else Segment(printable(text), style)

    def on_broken_pipe(self) -> None:
        """`agentlab … | head`: who read has seen enough.  (Rich's own code for that is 1, with which `replay` says that it diverged.)"""
        self.quiet = True
        drop(self.file)
        raise SystemExit(PIPE_CLOSED)

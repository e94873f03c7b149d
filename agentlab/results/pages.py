"""Sections of tables and figures as Markdown and as one HTML page that needs nothing beside it.

What goes into the cells may come from a model or from somebody else's run: it is quoted, never interpreted.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentlab.disk.files import disk_errors, write_atomic
from agentlab.disk.names import quoted


@dataclass(frozen=True)
class Section:
    """A titled table.

    Attributes:
        header: Names of the columns; the first column is text, the others are aligned to the right.
        rows: Cells, as text.
        note: A sentence below the title.
        figures: File names of the figures that belong to it.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    figures: tuple[str, ...] = ()


def write_pages(
    folder: Path, name: str, title: str, sections: Sequence[Section], figures: Mapping[str, Callable[[Path], None]]
) -> None:
    """Draw the figures into ``folder`` and write ``<name>.md`` and ``<name>.html``.

    Raises:
        StoreError: it cannot be written.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for file, draw in figures.items():
            (folder / file).unlink(missing_ok=True)  # were it a link, drawing would write to what it points at
            draw(folder / file)
        pictures = {file: (folder / file).read_bytes() for file in figures}
    write_atomic(folder / f"{name}.md", markdown(title, sections, figures=list(pictures)))
    write_atomic(folder / f"{name}.html", page(title, sections, pictures))


def markdown(title: str, sections: Sequence[Section], *, figures: Sequence[str] = ()) -> str:
    """The sections as GitHub-flavoured Markdown; figures are linked by file name."""
    out = [f"# {quoted(title)}", ""]
    for section in sections:
        out += [f"## {quoted(section.title)}", ""]
        if section.note:
            out += [quoted(section.note), ""]
        out += [_row(section.header), "|" + "---|" + "---:|" * (len(section.header) - 1)]
        out += [_row(row) for row in section.rows]
        out.append("")
        for figure in section.figures:
            if figure in figures:
                out += [f"![{Path(figure).stem.replace('_', ' ')}]({figure})", ""]
    return "\n".join(out)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(quoted(cell) for cell in cells) + " |"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }}
h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.1rem; margin: 2.2rem 0 .5rem }} p {{ color: #56606c; margin: .3rem 0 .7rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .9rem .25rem 0; border-bottom: 1px solid #e3e7ec; text-align: right; vertical-align: top }}
th:first-child, td:first-child {{ text-align: left }} th {{ font-weight: 600; color: #56606c }}
img {{ max-width: 30rem; width: 49%; margin-top: 1rem }}
</style></head><body><h1>{title}</h1>
{body}
</body></html>
"""


def page(title: str, sections: Sequence[Section], pictures: Mapping[str, bytes]) -> str:
    """The sections as one page; its figures are inside it, and it may load and run nothing."""
    return PAGE.format(title=html.escape(title), body="\n".join(_html(section, pictures) for section in sections))


def _html(section: Section, pictures: Mapping[str, bytes]) -> str:
    cells = [_cells("th", section.header), *(_cells("td", row) for row in section.rows)]
    note = f"<p>{html.escape(section.note)}</p>" if section.note else ""
    images = "".join(
        f'<img alt="{html.escape(name)}" src="data:image/png;base64,{base64.b64encode(pictures[name]).decode()}">'
        for name in section.figures
        if name in pictures
    )
    return f"<h2>{html.escape(section.title)}</h2>{note}<table>{''.join(cells)}</table>{images}"


def _cells(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

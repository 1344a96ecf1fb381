"""One self-contained HTML page: text, tables, figures as inline SVG. No scripts, nothing loaded from elsewhere, all text escaped."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from loopkit.checkpoint.atomic import write_text
from loopkit.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1320px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p { max-width: 75ch; } code, pre { font-family: ui-monospace, monospace; font-size: 13px; }
pre { background: #f5f5f5; padding: .7rem; overflow-x: auto; }
.row { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; flex: 1 1 300px; max-width: 640px; }
figure svg { width: 100%; height: auto; } figcaption { color: #555; font-size: 13px; }
table { border-collapse: collapse; margin: 1rem 0; } caption { text-align: left; color: #555; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
"""


@dataclass(frozen=True)
class Table:
    """Rows under column names; numbers are set to the right, floats with four significant digits."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int | None]]
    caption: str = ""


@dataclass(frozen=True)
class Picture:
    """An SVG drawing (see ``picture``) and the words under it."""

    svg: str
    caption: str = ""


@dataclass(frozen=True)
class Folded:
    """Text as it is, behind a line that opens it."""

    line: str
    text: str


Row = tuple[Picture, ...]
Block = str | Table | Picture | Folded | Row


@dataclass(frozen=True)
class Page:
    """Sections of (heading, blocks) under a title; a tuple of pictures stands side by side. ``command`` made the page."""

    title: str
    sections: Sequence[tuple[str, Sequence[Block]]]
    command: str = ""


def picture(figure: "Figure", caption: str = "") -> Picture:
    """A figure as a Picture for a page."""
    text = _svg(figure)
    return Picture(text[text.index("<svg") :], caption)


def save_figure(path: Path, figure: "Figure") -> Path:
    """Write a figure as .svg or .png, by the path's suffix, whole or not at all. Raises UsageError at another suffix."""
    if path.suffix == ".svg":
        write_text(path, _svg(figure))
    elif path.suffix == ".png":
        temporary = path.with_name(f".{path.name}.part")
        figure.savefig(temporary, format="png", dpi=200)
        temporary.replace(path)
    else:
        raise UsageError(f"{path.name} is neither .svg nor .png; e.g. {path.with_suffix('.svg').name}")
    return path


def write_page(path: Path, page: Page) -> Path:
    """Write the page as one HTML file, whole or not at all."""
    write_text(path, render(page))
    return path


def render(page: Page) -> str:
    """The page's HTML."""
    title = escape(page.title)
    made = f"<p>Made with</p>\n<pre>{escape(page.command)}</pre>\n" if page.command else ""
    body = "\n".join(_section(heading, blocks) for heading, blocks in page.sections)
    head = f'<meta charset="utf-8">\n<meta name="viewport" content="width=device-width">\n<title>{title}</title>\n<style>{CSS}</style>'
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n<h1>{title}</h1>\n{made}{body}\n</body>\n</html>\n'


def _section(heading: str, blocks: Sequence[Block]) -> str:
    top = f"<h2>{escape(heading)}</h2>\n" if heading else ""
    return top + "\n".join(map(_block, blocks))


def _block(block: Block) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Folded):
        return f"<details><summary>{escape(block.line)}</summary><pre>{escape(block.text)}</pre></details>"
    pictures = (block,) if isinstance(block, Picture) else block
    return '<div class="row">\n' + "\n".join(map(_figure, pictures)) + "\n</div>"


def _figure(picture: Picture) -> str:
    caption = f"<figcaption>{escape(picture.caption)}</figcaption>" if picture.caption else ""
    return f"<figure>{picture.svg}{caption}</figure>"


def _table(table: Table) -> str:
    caption = f"<caption>{escape(table.caption)}</caption>" if table.caption else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in table.columns)
    rows = "\n".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in table.rows)
    return f"<table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table>"


def _cell(value: str | float | None) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    return f'<td class="number">{value:,}</td>' if isinstance(value, int) else f'<td class="number">{value:.4g}</td>'


def _svg(figure: "Figure") -> str:
    import matplotlib

    from loopkit.report.plots import STYLE

    out = io.StringIO()
    with matplotlib.rc_context(STYLE):  # text as text, and the same ids each time
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return out.getvalue()

"""Pictures and pages of results: figures without global state, one self-contained HTML page. Knows nothing of models."""

from loopkit.report.page import Block, Folded, Page, Picture, Row, Table, picture, save_figure, write_page
from loopkit.report.plots import Point, Series, heatmap, lines, require_matplotlib, scatter

__all__ = [
    "Block",
    "Folded",
    "Page",
    "Picture",
    "Point",
    "Row",
    "Series",
    "Table",
    "heatmap",
    "lines",
    "picture",
    "require_matplotlib",
    "save_figure",
    "scatter",
    "write_page",
]

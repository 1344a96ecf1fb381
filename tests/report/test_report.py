"""Figures and pages: what is given is what is drawn and written, nothing leaks, nothing runs."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopkit.errors import LoopkitError, UsageError
from loopkit.report import Folded, Page, Point, Series, Table, heatmap, lines, picture, save_figure, scatter, write_page
from loopkit.report.page import render

X = np.arange(8)
NASTY = "<script>alert(1)</script> & \"x\" $a_b$ 'ü'"


class Seen(HTMLParser):
    """Tags that were opened and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_lines_draw_what_they_are_given() -> None:
    y = X**2 / 7
    axes = lines([Series("a", X, y, y - 1, y + 2), Series("b", X, -y)], title="t", x="visit", y="share").axes[0]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), y)
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), -y)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b"]
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == (y - 1).min()
    assert corners[:, 1].max() == (y + 2).max()
    assert (axes.get_title(), axes.get_xlabel(), axes.get_ylabel()) == ("t", "visit", "share")


def test_error_bars_reach_from_low_to_high() -> None:
    y = np.array([1.0, 2.0])
    axes = lines([Series("a", X[:2], y, y - 0.25, y + 0.5)], spread="bars").axes[0]
    (bars,) = axes.containers
    reach = [segment[:, 1].tolist() for segment in bars[2][0].get_segments()]
    assert reach == [[0.75, 1.5], [1.75, 2.5]]
    assert axes.get_legend() is None


def test_a_heat_map_has_its_numbers_where_they_fit() -> None:
    matrix = np.array([[0.123, np.nan, 1.0], [0.5, 0.25, 0.75]])
    axes = heatmap(matrix, x_labels=["a", "b", "c"], y_labels=["p", "q"]).axes[0]
    np.testing.assert_array_equal(np.ma.filled(axes.images[0].get_array(), np.nan), matrix)
    assert {text.get_text(): text.get_position() for text in axes.texts} == {
        "0.12": (0, 0), "1.00": (2, 0), "0.50": (0, 1), "0.25": (1, 1), "0.75": (2, 1)
    }  # fmt: skip
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert not heatmap(np.ones((30, 30))).axes[0].texts


def test_a_centre_is_neutral() -> None:
    image = heatmap(np.array([[-0.1, 0.4]]), centre=0.0).axes[0].images[0]
    assert image.norm(0.0) == 0.5
    assert image.get_clim() == (-0.4, 0.4)
    assert heatmap(np.full((2, 2), np.nan)).axes[0].images[0].get_clim() == (0.0, 1.0)


def test_scatter_names_its_points_and_groups() -> None:
    points = [Point("a", 1, 2, 0.1, (0.2, 0.4), "grown"), Point("b", 3, 4, group="looped"), Point("c", 5, 6, group="grown")]
    axes = scatter(points, log="x").axes[0]
    assert {text.get_text(): text.xy for text in axes.texts} == {"a": (1, 2), "b": (3, 4), "c": (5, 6)}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["grown", "looped"]
    assert axes.containers[0].lines[0].get_color() == axes.containers[2].lines[0].get_color() != axes.containers[1].lines[0].get_color()
    assert axes.get_xscale() == "log"
    reach = axes.containers[0].lines[2][1].get_segments()[0][:, 1]
    np.testing.assert_allclose(reach, [1.8, 2.4])


def test_names_of_points_that_lie_close_do_not_cover_each_other() -> None:
    figure = scatter([Point(f"a name {number}", 1 + number / 100, number**2 / 100) for number in range(6)] + [Point("far", 9, 9)])
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(one.overlaps(other) for number, one in enumerate(boxes) for other in boxes[:number])
    assert figure.axes[0].texts[-1].get_position() == figure.axes[0].texts[0].get_position()  # what is alone or lowest stays


def test_figures_leave_no_state_and_are_the_same_each_time() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    first, again = (picture(lines([Series("a", X, X)], title="twice")).svg for _ in range(2))
    assert first == again
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in sys.modules or "pyplot" not in first


def test_files_are_png_or_svg(tmp_path: Path) -> None:
    figure = heatmap(np.eye(3))
    assert save_figure(tmp_path / "a.png", figure).read_bytes().startswith(b"\x89PNG")
    assert ElementTree.fromstring(save_figure(tmp_path / "a.svg", figure).read_text()).tag.endswith("svg")
    with pytest.raises(UsageError, match=r"a\.svg"):
        save_figure(tmp_path / "a.gif", figure)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "a.svg"]


def test_a_page_holds_all_and_runs_nothing(tmp_path: Path) -> None:
    shown = picture(lines([Series(NASTY, X, X), Series("b", X, -X)], title=NASTY, x=NASTY), NASTY)
    table = Table((NASTY, "n"), [(NASTY, 12345), ("x", 0.123456), (None, 7)], NASTY)
    page = Page(NASTY, [(NASTY, [NASTY, table, (shown, shown)]), ("", ["plain", shown, Folded(NASTY, NASTY)])], f"loopkit probe '{NASTY}'")
    html = write_page(tmp_path / "page.html", page).read_text(encoding="utf-8")
    seen = Seen(html)
    assert "script" not in seen.tags
    assert seen.tags.count("svg") == 3
    assert seen.text.count(NASTY) >= 10
    assert seen.tags.count("details") == 1
    for text in ("12,345", "0.1235", "plain", "loopkit probe"):
        assert text in seen.text
    elsewhere = html.replace("http://www.w3.org/", "").replace("https://www.w3.org/", "")
    assert not any(word in elsewhere for word in ("http:", "https:", "src=", "@import"))
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_any_text_comes_out_as_it_went_in(text: str) -> None:
    assert text in Seen(render(Page("t", [("", [text])]))).text


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(LoopkitError, match=r"pip install 'loopkit-lm\[plot\]'"):
        lines([Series("a", X, X)])

"""What is drawn means something: colours, bars, curves, marks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopkit_tui.engine import About, Loading
from loopkit_tui.widgets.colours import change, heat
from loopkit_tui.widgets.plot import Curves, Plot, Series, _canvas, _points, _thinned, _ticks, aligned, short
from loopkit_tui.widgets.tokens import blocks, readable, shown
from loopkit_tui.widgets.topbar import ModelLine, millions
from playing import until
from textual.app import App, ComposeResult
from textual.color import Color
from textual.pilot import Pilot


@pytest.mark.parametrize(("share", "bar"), [(0, "    "), (1, "████"), (0.5, "██  "), (0.25 + 1 / 32, "█▏  "), (2, "████"), (-1, "    ")])
def test_bars_are_as_long_as_the_share(share: float, bar: str) -> None:
    assert blocks(share, 4) == bar


@pytest.mark.parametrize(("text", "mark"), [(" a", "␣a"), ("\n", "⏎"), ("", "∅"), ("\x1b[31m", "�[31m"), ("abcdefgh", "abcd…")])
def test_tokens_show_what_cannot_be_seen(text: str, mark: str) -> None:
    assert shown(text, 5) == mark


def test_what_a_model_writes_cannot_move_the_cursor() -> None:
    assert readable("a\tb\nc\x1c\x1b[2J\x85\u2028ü猫") == "a  b\nc��[2J��ü猫"


@pytest.mark.parametrize(("number", "text"), [(134_515_008, "134.5M"), (303.4e9, "303.4G"), (12, "12"), (5300, "5.3k")])
def test_large_numbers_are_said_as_people_do(number: float, text: str) -> None:
    assert millions(number) == text


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (1.23456, "1.235"), (1e-5, "1.0e-05"), (123456.0, "1.2e+05"), (-0.5, "-0.5")])
def test_numbers_on_axes_are_short(value: float, text: str) -> None:
    assert short(value) == text


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([4.4, 3.003, 0.0], ["4.400", "3.003", "0.000"]),
        ([8.0, 4.0, 0.0], ["8", "4", "0"]),
        ([0.5, 1e-5], ["0.5", "1.0e-05"]),
        ([1234.5, 0.1234], ["1234", "0.1234"]),
    ],
)
def test_numbers_of_an_axis_line_up_where_there_is_room(values: list[float], texts: list[str]) -> None:
    assert aligned(values) == texts


@pytest.mark.parametrize(
    ("low", "high", "height", "ticks"),
    [
        (2.9137, 4.4003, 15, {4: "4.0", 8: "3.5", 13: "3.0"}),
        (0.0, 1.0, 15, {0: "1.0", 3: "0.8", 6: "0.6", 8: "0.4", 11: "0.2", 14: "0.0"}),
        (-0.5, 0.5, 12, {1: "0.4", 3: "0.2", 6: "0.0", 8: "-0.2", 10: "-0.4"}),
        (4.0, 8.0, 3, {0: "8", 2: "4"}),
    ],
)
def test_axes_show_round_numbers_where_they_belong(low: float, high: float, height: int, ticks: dict[int, str]) -> None:
    assert _ticks(low, high, height) == ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 80))
def test_every_axis_has_a_few_numbers_and_each_its_row(low: float, size: float, height: int) -> None:
    high = low + size
    ticks = _ticks(low, high, height)
    assert 2 <= len(ticks) <= 6
    for row, text in ticks.items():
        assert 0 <= row < height
        assert abs(float(text) - (high - size * row / (height - 1))) <= size / (height - 1) + 0.05 * max(abs(low), abs(high))


class Canvas(App[None]):
    """A plot alone."""

    def __init__(self, curves: Curves) -> None:
        super().__init__()
        self.curves = curves

    def compose(self) -> ComposeResult:
        plot = Plot()
        plot.curves = self.curves
        yield plot


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "gruvbox"])
def test_more_is_farther_from_the_ground_and_better_is_green(theme: str) -> None:
    app: App[None] = App()

    def ground(style: str) -> Color:
        return Color.parse(style.partition(" on ")[2])

    async def script(pilot: Pilot[None]) -> None:
        app.theme = theme
        surface = Color.parse(app.theme_variables["surface"])

        def distance(style: str) -> float:
            return sum(abs(a - b) for a, b in zip(ground(style).rgb, surface.rgb, strict=True))

        steps = [distance(heat(app, value)) for value in np.linspace(0, 1, 9)]
        assert steps == sorted(steps) and steps[-1] > steps[0]
        better, worse = ground(change(app, 1.0)), ground(change(app, -1.0))
        assert better == Color.parse(app.theme_variables["success"]) and worse == Color.parse(app.theme_variables["error"])
        for value in np.linspace(-1, 1, 17):
            for style in (change(app, value), heat(app, abs(value))):
                text, _, behind = style.partition(" on ")
                assert abs(Color.parse(text).brightness - Color.parse(behind).brightness) > 0.3

    _alone(app, script)


def test_a_terminals_own_colours_get_attributes(tmp_path: object) -> None:
    app: App[None] = App()

    async def script(pilot: Pilot[None]) -> None:
        app.theme = "ansi-dark"
        assert [heat(app, value) for value in (0, 0.3, 0.6, 1)] == ["dim", "", "bold", "reverse"]
        assert "green" in change(app, 1) and "reverse" in change(app, 1)
        assert "red" in change(app, -1) and change(app, 0) == "dim"

    _alone(app, script)


def test_a_curve_goes_where_its_numbers_say() -> None:
    rising = Curves((Series("a", np.arange(10), np.arange(10.0)),), "rises", "step")
    app = Canvas(rising)

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.query_one(Plot).size.height > 5)
        lines = str(app.query_one(Plot).render()).splitlines()
        canvas = [line[9:] for line in lines[1:-2]]
        columns = [next(i for i, mark in enumerate(line) if mark != " ") for line in canvas if line.strip()]
        assert columns == sorted(columns, reverse=True)
        assert [line.split("│")[0].strip() for line in (lines[3], lines[-3])] == ["8", "0"]
        assert lines[-1].split() == ["0", "step", "9"]

    _alone(app, script)


def test_many_points_are_drawn_by_the_ends_of_their_columns() -> None:
    """The same picture as of all points, up to the lines from one column of dots to the next."""
    rng = np.random.default_rng(0)
    y = np.cumsum(rng.standard_normal(20000)) / 50 + rng.standard_normal(20000)
    x = np.linspace(0, 99, 20000)
    found, every = _points(*_thinned(x, y), False), _points(x, y, False)
    assert len(_thinned(x, y)[0]) == 200
    assert len(found ^ every) < 0.05 * len(every)
    gap = np.where(x < 50, y, np.nan)
    assert _thinned(x, gap)[1] is gap


def test_a_title_longer_than_the_plot_keeps_the_legend_and_one_line() -> None:
    series = tuple(Series(label, np.arange(3), np.arange(3.0)) for label in ("first", "second"))
    app = Canvas(Curves(series, "t" * 30, "step", "a unit of which nobody has heard"))

    async def script(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: app.query_one(Plot).size.height > 5)
        lines = str(app.query_one(Plot).render()).splitlines()
        assert lines[0] == "t" * 30 + "  ━ first  ━ second" and len(lines) == app.query_one(Plot).size.height
        app.query_one(Plot).curves = Curves(series, "t" * 300)
        assert str(app.query_one(Plot).render()).splitlines()[0] == "t" * 59 + "…"

    _alone(app, script)


def test_the_first_curve_lies_on_top() -> None:
    flat = np.zeros(4)
    (row, *_) = _canvas([Series("a", np.arange(4), flat), Series("b", np.arange(4), flat)], (0, 3, -1, 1), 8, 1, False)[1]
    assert set(row) == {0}


@pytest.mark.parametrize(
    ("loading", "said"),
    [(None, "waiting …"), (Loading("smol", "starting"), "starting …"), (Loading("smol", "reading", 0.42), "reading ████▎       42%")],
)
def test_the_line_of_a_model_says_how_far_its_loading_is(loading: Loading | None, said: str) -> None:
    line = ModelLine()
    line.show(About("smol", "smol", (0, 1), "2", 1000), loading)
    assert str(line.render()).endswith(said)


def test_a_curve_of_nothing_draws_only_its_title() -> None:
    app = Canvas(Curves((Series("a", np.arange(3), np.full(3, np.nan)),), "nothing"))

    async def script(pilot: Pilot[None]) -> None:
        await pilot.pause()
        assert str(app.query_one(Plot).render()) == "nothing"

    _alone(app, script)


def _alone(app: App[None], script: object) -> None:
    import asyncio

    async def run() -> None:
        async with app.run_test(size=(60, 20)) as pilot:
            await script(pilot)  # type: ignore[operator]

    asyncio.run(run())

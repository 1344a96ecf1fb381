"""From the picker to an exported best plan by keyboard alone, as a person plays it: in terminals of two sizes and in a browser."""

import asyncio
import shutil
from pathlib import Path

import pytest
from browser import BROWSERS, browsing, served
from playing import SIZES
from terminal import Terminal

from loopkit.evaluation import sweep as sweeps
from loopkit.plan import parse_plan
from loopkit.session import load

BOXES = ("copy-words-10", "tab", "2", "tab", "2", "tab", "tab", "4", "enter")  # task, block, times, count of a sweep
PROMPT = "hello world"


@pytest.fixture(scope="module")
def best(nano: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The best plan by the library's own sweep of what BOXES asks."""
    model = load(nano, "torch", "cpu")
    asked = sweeps.Settings(("copy-words-10",), (2,), (2,), ("plain",), 4, 5, 0)
    rows = sweeps.rows(model, list(sweeps.sweep(model, asked, tmp_path_factory.mktemp("sweep") / "sweep"))[-1])
    return max(rows[1:], key=lambda row: (row.correct, row.probability)).plan


@pytest.fixture
def here(tmp_path: Path, nano: Path) -> Path:
    """A folder with a checkpoint in it."""
    folder = tmp_path / "here"
    shutil.copytree(nano, folder / "nano")
    return folder


def check_exported(here: Path, best: str) -> None:
    """There is a model whose own plan is the best one, and it says what the original says under that plan."""
    (folder,) = [path for path in here.iterdir() if path.name != "nano"]
    original, exported = load(here / "nano", "torch", "cpu"), load(folder, "torch", "cpu")
    assert exported.plan == parse_plan(best, original.plan)
    ids = original.prompt_ids(PROMPT)
    assert exported.prompt_ids(PROMPT) == ids
    assert (exported.logits(ids) == original.logits(ids, best)).all()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_in_a_terminal(here: Path, best: str, size: tuple[int, int]) -> None:
    terminal = Terminal("--prompt", PROMPT, "--backend", "torch", size=size, here=here)
    terminal.until("checkpoint nano", "esc closes")
    terminal.press("nan", "enter")
    seen = terminal.until("torch cpu float32", "KL 0.0000 nats", "q Quit")
    assert len(seen.splitlines()) == size[1] and max(map(len, seen.splitlines())) <= size[0]
    terminal.press("up", "up")
    terminal.until("×3", "visits 6 → 14", "visits run")
    terminal.press("3")
    terminal.until("s starts")
    terminal.press("/", *BOXES, "s")
    terminal.until("100% done")
    terminal.press("b")
    terminal.until(f" {best}\n" if size[0] < 100 else best)
    terminal.press("enter")
    terminal.until(f"plan {best}", "visits 6 → 8", "visits run")
    terminal.press("e")
    terminal.until("with this plan as its own")
    terminal.press("m")
    terminal.until("written")
    terminal.press("q")
    assert terminal.end() == 0
    assert b"Traceback" not in terminal.seen
    check_exported(here, best)


def test_in_a_browser(tmp_path: Path, here: Path, best: str) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine; install Debian's package chromium to test --web")
    pytest.importorskip("textual_serve", reason="--web needs textual-serve: pip install 'loopkit-lm[web]'")
    with served("--prompt", PROMPT, "--backend", "torch", here=here) as port:
        asyncio.run(_in_browser(browser, tmp_path / "profile", port, best))
    check_exported(here, best)


async def _in_browser(browser: str, profile: Path, port: int, best: str) -> None:
    async with browsing(browser, profile, port) as page:
        await page.until("checkpoint nano", "esc closes")
        await page.click(5, 5)
        await page.press("nan", "enter")
        await page.until("torch cpu float32", "KL 0.0000 nats", "q Quit")
        await page.press("up", "up")
        await page.until("×3", "visits 6 → 14", "visits run")
        await page.press("3")
        await page.until("s starts")
        await page.press("/", *BOXES, "s")
        await page.until("100% done")
        await page.press("b")
        await page.until(best)
        await page.press("enter")
        await page.until(f"plan {best}", "visits 6 → 8", "visits run")
        assert len(await page.picture()) > 10_000
        await page.press("e")
        await page.until("with this plan as its own")
        await page.press("m")
        await page.until("written")

"""The book and the README hold what is so: commands, links, formats, code."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from recipes import small
from typer.main import get_command

from loopkit import backend as backends
from loopkit.checkpoint.export import export
from loopkit.checkpoint.folder import open_folder, write_folder
from loopkit.checkpoint.initial import initialize
from loopkit.cli import app, main
from loopkit.data.tokenizers import byte_codec
from loopkit.plan import parse_plan
from loopkit.spec import preset
from loopkit.training.folder import RunFolder
from loopkit.training.loop import Hardware
from loopkit.training.recipe import Recipe
from loopkit.training.start import begin, train

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
GENERATED = DOCS / "commands.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language; an empty one for blocks that name none."""
    return [text for name, text in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def typed_lines() -> Iterator[str]:
    """Every loopkit command that a page shows."""
    for page in PAGES:
        for text in [*blocks(page, ""), *blocks(page, "bash")]:
            yield from (line for line in text.splitlines() if re.match(r"loopkit [a-z]|python examples/own_task", line))


@cache
def commands() -> dict[str, Any]:
    return dict(get_command(app).commands)  # type: ignore[attr-defined]


# --- commands ------------------------------------------------------------------------------------


def test_the_page_of_commands_is_what_the_commands_say(tmp_path: Path) -> None:
    subprocess.run([sys.executable, DOCS / "commands.py", tmp_path / "now.md"], check=True)
    assert GENERATED.read_text(encoding="utf-8") == (tmp_path / "now.md").read_text(encoding="utf-8"), "run: python docs/commands.py"


def test_it_has_every_command_and_option() -> None:
    chapters = dict(re.findall(r"^## loopkit (\S+)\n(.*?)(?=^## |\Z)", GENERATED.read_text(encoding="utf-8"), re.M | re.S))
    assert list(chapters) == list(commands())
    for name, command in commands().items():
        options = {each for parameter in command.params for each in parameter.opts if each.startswith("--")} - {"--help"}
        shown = {word for line in re.findall(r"^(--.*?)(?:  |$)", chapters[name], re.M) for word in re.findall(r"--[a-z][\w-]*", line)}
        assert options <= shown, name
        assert "loopkit " + name in chapters[name], f"{name} has no example"


@pytest.mark.parametrize("line", sorted(set(typed_lines())))
def test_what_the_pages_show_can_be_typed(line: str) -> None:
    """Names, options and kinds of values; nothing is run."""
    words = shlex.split(line.replace("python examples/own_task.py", "loopkit"), comments=True)[1:]
    if words[0] != "COMMAND":
        commands()[words[0]].make_context(words[0], words[1:])


# --- links ---------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Of a page's headings, where Python-Markdown and code forges agree on them."""
    names = [re.sub(r"[^\w\s-]", "", title.lower()).strip() for title in re.findall(r"^#+ +(.+)$", FENCE.sub("", page.read_text()), re.M)]
    return {name.replace(" ", "-") for name in names} & {re.sub(r"[-\s]+", "-", name) for name in names}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}"


def test_the_link_test_sees_links() -> None:
    assert "](plans.md)" in prose(DOCS / "index.md")
    assert "adaptive-looping" in anchors(DOCS / "evaluation.md")


def test_the_book_builds(tmp_path: Path) -> None:
    """Every page in its table of contents, every link and anchor found."""
    pytest.importorskip("mkdocs", reason="needs mkdocs: pip install 'loopkit-lm[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (tmp_path / "site").glob("*.html")} - {"404", "search"} == {path.stem for path in DOCS.glob("*.md")}


# --- code ----------------------------------------------------------------------------------------


def test_shown_code_is_that_of_the_examples() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py"))
    shown = [text for text in blocks(DOCS / "extending.md", "python") if text.startswith(("def ", "@register"))]
    assert len(shown) >= 3
    for text in shown:
        assert text in code


@pytest.fixture(scope="module")
def smol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random model of 12 layers called smol."""
    folder, spec = tmp_path_factory.mktemp("docs"), preset("nano").with_layout("12")
    byte_codec().save(folder)
    write_folder(folder / "smol", spec, initialize(spec), tokenizer=folder)
    return folder


@pytest.mark.parametrize("page", ["README.md", "docs/plans.md", "docs/probes.md"])
def test_shown_python_runs(smol: Path, monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    monkeypatch.chdir(smol)
    shown = [text for text in blocks(ROOT / page, "python") if "import loopkit\n" in text]
    assert shown
    for text in shown:
        exec(compile(text, page, "exec"), {})


# --- file formats --------------------------------------------------------------------------------


def described() -> str:
    return (DOCS / "formats.md").read_text(encoding="utf-8")


def assert_described(folder: Path) -> None:
    """Each file's name is in the chapter."""
    for path in folder.rglob("*"):
        name = re.sub(r"step_\d+", "step_000200", path.name)
        assert re.search(rf"[`/]{re.escape(name)}[`/]", described()), f"docs/formats.md does not say what {path.relative_to(folder)} is"


def test_all_keys_of_recipes_are_described() -> None:
    assert Recipe().toml() in blocks(DOCS / "formats.md", "toml")


def test_run_folders_are_described(tmp_path: Path) -> None:
    recipe = small("schedule.steps=4", "schedule.warmup=1", "growth.operator=lidas", "growth.block=2", "train.evaluate_every=2")
    folder, hardware = RunFolder(tmp_path / "run"), Hardware(backends.load("torch"), "cpu", "float32")
    for _ in train(begin(recipe, folder, hardware), folder, hardware):
        pass
    assert_described(folder.path)
    events = folder.metrics()
    assert {event["event"] for event in events} == {"step", "evaluated", "grown", "saved"}
    for name in {name for event in events for name in (event["event"], *event)}:
        assert f"`{name}`" in described(), f"docs/formats.md does not say what {name} is in metrics.jsonl"
    saved = json.loads((folder.newest() / "trainer_state.json").read_text())  # type: ignore[operator]
    assert all(f"`{name}`" in described() for name in saved)


def test_looped_checkpoints_are_described(smol: Path, tmp_path: Path) -> None:
    checkpoint = open_folder(smol / "smol")
    plan = parse_plan("8:12x2", checkpoint.spec.plan)
    tied, plain = (
        export(checkpoint, tmp_path / "tied", plan=plan, unrolled=False),
        export(checkpoint, tmp_path / "plain", plan=plan, unrolled=True),
    )
    assert_described(tied)
    before, after = (json.loads((path / "config.json").read_text()) for path in (plain, tied))
    for key in (key for key in after if after[key] != before.get(key)):
        assert f"`{key}`" in described(), f"docs/formats.md does not say what {key} is"


@pytest.mark.parametrize(
    "command",
    [
        "loop smol --sweep --block 12 --times 2 --task var-basic-0 --count 2 --shots 0",
        "probe tuned-lens smol --data stdlib --examples 2 --length 16 --set positions=32 --set batch=32 --set texts=4",
    ],
    ids=["sweep", "probe"],
)
def test_folders_of_studies_are_described(smol: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(smol)
    monkeypatch.setattr(sys, "argv", ["loopkit", *command.split(), "--backend", "torch", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    for path in (tmp_path / "out").rglob("tuned-lens*"):
        path.rename(path.with_name(re.sub(r"-\d$", "-1", path.stem.replace("tuned-lens", "NAME")) + path.suffix))
    for path in (tmp_path / "out").rglob("smol"):
        path.rename(path.with_name("CKPT"))
    assert_described(tmp_path / "out")

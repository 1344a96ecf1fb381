"""The story told whole at its smallest size, stopped and killed on the way, as a person runs it; its rules on made-up numbers."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loopkit.backend import available
from loopkit.checkpoint.folder import open_folder
from loopkit.data.loading import make_codec
from loopkit.data.mixture import parse_mixture
from loopkit.data.tasks import find
from loopkit.data.words import closed_words
from loopkit.training.folder import Position, RunFolder
from loopkit.training.schedule import cooldown_start

FOLDER = Path(__file__).parents[2] / "examples" / "grow_then_loop"
sys.path.insert(0, str(FOLDER))

from claims import CLAIMS  # noqa: E402  (the example is a folder of scripts)
from dry_run import costs  # noqa: E402
from jobs import LOOP, Job, Story  # noqa: E402
from measures import Value  # noqa: E402
from rules import MISSING, NOISY, NOT_REPRODUCED, REPRODUCED, Outcome, judge, outcomes, verdict  # noqa: E402
from runner import Runner, lock  # noqa: E402
from sizes import SIZES, Size  # noqa: E402
from summaries import Table, cycle  # noqa: E402

BACKEND = "mlx" if "mlx" in available() else "torch"  # which starts faster
SMOKE = SIZES["smoke"]


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(FOLDER / "run.py"), *map(str, arguments)]


def tell(out: Path, *more: object) -> subprocess.CompletedProcess[str]:
    """The story at its smallest size."""
    return subprocess.run(command("smoke", "--out", out, "--backend", BACKEND, *more), capture_output=True, text=True, check=False)


def interrupt(out: Path, jobs: int, stop: Callable[[subprocess.Popen[str]], None]) -> subprocess.Popen[str]:
    """Begin or go on, and stop it after so many finished jobs."""
    process = subprocess.Popen(
        command("smoke", "--out", out, "--backend", BACKEND), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests begun in the background ignore Ctrl-C, and so would it
    )  # fmt: skip
    assert process.stdout
    for _ in range(jobs + 1):  # the first line says how many there are
        process.stdout.readline()
    stop(process)
    process.wait()
    return process


def kill(process: subprocess.Popen[str]) -> None:
    """The process and what it has started, without a word; it is halted first, so that it starts no more."""
    while not children(process):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGSTOP)
    started = children(process)
    process.kill()
    for child in started:
        os.kill(child, signal.SIGKILL)


def children(process: subprocess.Popen[str]) -> list[int]:
    return list(map(int, subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout.split()))


def files(out: Path) -> dict[Path, tuple[int, int]]:
    """All files but the page, with time and size."""
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_size)
        for path in out.rglob("*")
        if path.is_file() and path.name not in ("page.html", ".lock")
    }


@dataclass
class Told:
    """A story that was told with interruptions, and what was seen of each."""

    out: Path
    stopped: subprocess.Popen[str]
    early_page: str
    obstructed: subprocess.CompletedProcess[str]
    before: dict[str, np.ndarray]
    whole: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Stopped by Ctrl-C, killed, with one training that fails and one that is cut short, and then whole."""
    pytest.importorskip("matplotlib")
    out = tmp_path_factory.mktemp("story") / "out"
    stopped = interrupt(out, 3, lambda process: process.send_signal(signal.SIGINT))
    assert tell(out, "--only", "page").returncode == 0
    early = (out / "page.html").read_text(encoding="utf-8")
    interrupt(out, 2, kill)
    (out / "runs" / "full" / "seed_1").mkdir(parents=True)
    (out / "runs" / "full" / "seed_1" / "notes.txt").write_text("mine", encoding="utf-8")
    obstructed = tell(out)
    assert (out / "runs" / "full" / "seed_1" / "notes.txt").read_text(encoding="utf-8") == "mine"
    (out / "runs" / "full" / "seed_1" / "notes.txt").unlink()
    before = cut_short(RunFolder(out / "runs" / "baseline" / "seed_0"))
    return Told(out, stopped, early, obstructed, before, tell(out))


def cut_short(run: RunFolder) -> dict[str, np.ndarray]:
    """Leave a run as it was before its last checkpoint was written; the weights that it ended with."""
    last = run.newest()
    assert last is not None
    weights = {name: np.array(array) for name, array in open_folder(last).arrays.items()}
    for path in sorted(last.iterdir()):
        path.unlink()
    last.rmdir()
    (run.path / "latest").unlink()
    return weights


# --- the story whole -----------------------------------------------------------------------------


def test_it_is_told_whole(told: Told) -> None:
    assert told.whole.returncode == 0, told.whole.stderr
    jobs = Story(SMOKE, told.out, BACKEND).jobs
    assert all(job.done for job in jobs)
    assert {job.stage for job in jobs} == {"train", "cooldown", "evaluate", "probe"}
    assert told.whole.stdout.splitlines()[-1] == str(told.out / "page.html")


def test_ctrl_c_stops_it_and_says_how_to_go_on(told: Told) -> None:
    assert told.stopped.returncode == 130
    assert told.stopped.stderr
    assert told.stopped.stderr.read() == "stopped; the same command goes on\n"


def test_a_job_that_had_just_begun_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    class Begun(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            begun.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Begun)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with lock(tmp_path) as held, pytest.raises(KeyboardInterrupt):
            Runner(tmp_path, 1, held).run(Story(SMOKE, tmp_path, BACKEND).jobs, set())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert [process.returncode is None for process in begun] == [False]


def test_no_finished_job_is_done_again(told: Told) -> None:
    done = Counter(json.loads(line)["job"] for line in (told.out / "times.jsonl").read_text(encoding="utf-8").splitlines())
    assert done.pop("train baseline seed 0") == 2  # cut short by the test
    assert set(done.values()) == {1}
    others = {job.name for job in Story(SMOKE, told.out).jobs} - {"train baseline seed 0"}
    assert set(done) <= others
    assert len(others - set(done)) <= 2, "but for two that may have ended just before they were killed, each is there"


def test_a_failed_job_stops_what_needs_it_and_nothing_else(told: Told) -> None:
    assert told.obstructed.returncode == 1
    said = told.obstructed.stderr
    assert "failed: train full seed 1 (exit code 2)" in said
    assert "loopkit train" in said
    assert "exists already" in said
    jobs = Story(SMOKE, told.out).jobs
    needing = {job.name for job in jobs if "train full seed 1" in job.needs}
    assert {line.split(" needs ")[0].removeprefix("not done: ") for line in said.splitlines() if line.startswith("not done")} == needing
    assert "probe swap seed 0" in told.obstructed.stdout
    assert "repeats seed 1" in told.obstructed.stdout


def test_a_training_that_was_cut_short_goes_on(told: Told) -> None:
    run = RunFolder(told.out / "runs" / "baseline" / "seed_0")
    assert [path.name for path in run.checkpoints()] == ["step_000005", "step_000010", "step_000013"]
    after = open_folder(run.newest() or "").arrays
    assert all((after[name] == array).all() for name, array in told.before.items())
    assert "step 10" in " ".join(f"step {event['step']}" for event in run.metrics())


def test_the_second_time_does_nothing(told: Told) -> None:
    before = files(told.out)
    again = tell(told.out, "--jobs", 1)
    assert again.returncode == 0
    total = len(Story(SMOKE, told.out).jobs)
    assert again.stdout.splitlines() == [f"{total} jobs, {total} of them finished", str(told.out / "page.html")]
    assert files(told.out) == before


def test_only_one_works_in_a_folder(told: Told) -> None:
    with lock(told.out):
        refused = tell(told.out)
    assert refused.returncode == 2
    assert "still at work" in refused.stderr


def test_another_story_is_refused(told: Told) -> None:
    refused = subprocess.run(command("quick", "--out", told.out), capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "holds the story of size smoke, not quick" in refused.stderr


# --- the page ------------------------------------------------------------------------------------


def test_the_page_has_every_figure_table_and_claim(told: Told) -> None:
    text = (told.out / "page.html").read_text(encoding="utf-8")
    places = [text.index(f"<h2>{name}</h2>") for name in ("The claims", "Figure 1", "Table 1", *(f"Figure {n}" for n in range(2, 9)))]
    places += [text.index(f"<h2>{name}</h2>") for name in ("Table 2", "Table 3", "Figure 9")]
    assert places == sorted(places)
    for section in text[places[1] :].split("<h2>")[1:]:
        assert "<svg" in section or "<table" in section
        assert "<details>" in section
        assert "loopkit " in section
    assert all(f"<td>{claim.says}</td>".replace("'", "&#x27;") in text for claim in CLAIMS)
    assert "Missing here" not in text
    assert MISSING in text, "this size trains no iso-parameter baseline"


def test_the_page_stands_alone(told: Told) -> None:
    text = (told.out / "page.html").read_text(encoding="utf-8")
    assert not [word for word in ("<script", "src=", "<link", "@import") if word in text]


def test_the_page_says_what_is_missing(told: Told) -> None:
    assert told.early_page.count("Missing here") == 12
    assert "2 of 2 commands are not finished, the next is probe swap seed 0" in told.early_page


# --- sizes and the dry run -----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_the_dry_run_prints_every_job(size: Size) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(command(size.name, "--dry-run", "--flops", "1e15"), env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    jobs = Story(size, Path("runs/story")).jobs
    assert sum(line.startswith("loopkit ") for line in lines) == len(jobs)
    assert sum(bool(re.search(r"training FLOPs, .*\d (s|min|h|days)\b", line)) for line in lines) == sum(job.trains for job in jobs) + 1
    assert not Path("runs/story/story.json").exists()


def test_the_dry_run_counts_what_the_runs_spent(told: Told) -> None:
    story = Story(SMOKE, told.out)
    expected = costs(story)
    for job in story.jobs:
        if job.trains:
            model, branched, _ = job.made.parent.name.partition("+")
            trunk = RunFolder(story.run(model, int(job.name[-1])))
            passed = [Position(0), *map(trunk.position, trunk.checkpoints())]  # among them one of where it was stopped, at any step
            begun = max((each for each in passed if each.step <= 10), key=lambda each: each.step) if branched else Position(0)
            run = RunFolder(job.made)
            end = run.position(run.checkpoints()[-1])
            assert begun.step == (10 if branched else 0)
            assert end.flops - begun.flops == pytest.approx(expected[job.name].flops, rel=1e-9)
            assert end.tokens - begun.tokens == expected[job.name].tokens
            weights = sum(np.asarray(array).size for array in open_folder(run.checkpoints()[-1]).arrays.values())
            kept = 1 if branched else 3  # after 5, 10 and 13 steps; a run that was stopped has one more
            assert (expected[job.name].unique, expected[job.name].disk) == (weights, 12 * weights * kept)


def test_the_papers_own_numbers() -> None:
    """Section 3.2: about 200B and 400B tokens; appendix A: 170,000 steps of growth; about 80% of the training compute."""
    for name, tokens in (("paper-360m", 200e9), ("paper-1.7b", 400e9)):
        size = SIZES[name]
        found = costs(Story(size, Path("out")))
        assert found["train baseline seed 0"].tokens == pytest.approx(tokens, rel=0.06)
        assert found["train lidas seed 0"].flops / found["train baseline seed 0"].flops == pytest.approx(0.78, abs=0.02)
        schedule = size.recipe.schedule
        assert cooldown_start(schedule.steps, schedule.cooldown) == 170_000
    assert SIZES["paper-1.7b"].models["middle"].options == ("--layout", "4-4x4-4")
    assert SIZES["paper-1.7b"].retrofits == {"baseline": "8:12x2", "lidas": "8:12x2", "middle": "4-4x5-4"}


@pytest.mark.parametrize("size", [size for size in SIZES.values() if size.recipe.data.tokenizer == "word"], ids=lambda size: size.name)
def test_word_tokenizers_know_all_that_is_asked(size: Size) -> None:
    codec = make_codec("word", parse_mixture(size.recipe.data.mix))
    asked = {*size.primitives, *size.word_problems, *size.tuned_tasks, size.probe_task}
    for source in size.maths:
        asked |= {name for part in parse_mixture(size.cooldown_mixture(source)).parts for name in part.source.names}  # type: ignore[union-attr]
    assert closed_words(map(find, asked)) <= set(codec.core.get_vocab())


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_branches_begin_at_a_kept_checkpoint(size: Size) -> None:
    recipe = size.recipe
    assert recipe.train.keep == 0
    assert cooldown_start(recipe.schedule.steps, recipe.schedule.cooldown) % recipe.train.save_every == 0


@pytest.mark.parametrize("size", SIZES.values(), ids=lambda size: size.name)
def test_jobs_come_after_what_they_need(size: Size) -> None:
    seen: set[str] = set()
    for job in Story(size, Path("out")).jobs:
        assert seen.issuperset(job.needs)
        assert job.name not in seen
        seen.add(job.name)


def test_cooldowns_hold_the_share_of_maths() -> None:
    mixture = parse_mixture(SIZES["quick"].cooldown_mixture("maths-a"))
    assert mixture.shares[-1] == pytest.approx(0.2)
    assert sum(mixture.shares[:-1]) == pytest.approx(0.8)


def test_an_unfinished_training_is_resumed_and_a_finished_one_is_done(told: Told) -> None:
    job = Story(SMOKE, told.out, BACKEND).jobs[0]
    assert job.done
    unfinished = Job(job.name, job.stage, job.arguments, told.out / "runs" / "none" / "seed_0", hardware=job.hardware)
    assert not unfinished.done
    assert unfinished.next_arguments == (*job.arguments, *job.hardware)
    assert job.next_arguments == ("train", "--out", str(job.made), "--resume", "--backend", BACKEND)


# --- the rules -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([1.0, 1.1, 0.9], REPRODUCED),
        ([-1.0, -1.1, -0.9], NOT_REPRODUCED),
        ([1.0, 1.1, -0.9], NOISY),
        ([0.001, 0.001, 0.001], REPRODUCED),
        ([0.0, 0.0, 0.0], NOISY),
        ([5.0, 1.0], NOISY),  # two seeds: t is 12.7
        ([5.0], NOISY),
        ([], MISSING),
    ],
)
def test_the_rule(differences: list[float], expected: str) -> None:
    assert judge(dict(enumerate(differences)))[2] == expected


def test_the_rules_interval_is_students() -> None:
    """Of 1, 2 and 3: mean 2, deviation 1, t(2) = 4.303."""
    mean, interval, _ = judge({0: 1.0, 1: 2.0, 2: 3.0})
    assert mean == 2
    assert interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5))


def test_all_comparisons_of_a_claim_must_hold() -> None:
    def of(*verdicts: str) -> str:
        return verdict([Outcome("", {}, None, None, each) for each in verdicts])

    assert of(REPRODUCED, REPRODUCED) == REPRODUCED
    assert of(REPRODUCED, NOISY) == NOISY
    assert of(REPRODUCED, NOISY, MISSING) == MISSING
    assert of(MISSING, NOT_REPRODUCED, REPRODUCED) == NOT_REPRODUCED


def test_differences_are_of_the_same_seed() -> None:
    """Seeds that differ more than the models do not hide a difference."""
    values = [
        Value("accuracy", model, seed, 0.1 * seed + gain, "copy-words-32")
        for seed in range(3)
        for model, gain in (("lidas", 0.01), ("midas", 0.0))
    ]
    (found,) = outcomes(next(claim for claim in CLAIMS if claim.id == "lidas"), Table(SIZES["quick"], values))
    assert found.mean == pytest.approx(0.01)
    assert found.verdict == REPRODUCED


SCORES = {"baseline": 0.40, "midas": 0.45, "lidas": 0.50, "full": 0.42, "middle": 0.48, "iso-full": 0.2, "iso-middle": 0.3}
MATHS = {"baseline": 0.02, "lidas": 0.20, "middle": 0.10}
LOOPED = {"baseline": 0.05, "lidas": 0.06, "middle": 0.01}


def world(holds: bool) -> Iterator[Value]:
    """What would be measured at size quick where all that the paper says held, or where all models were the same."""
    size = SIZES["quick"]
    tasks = (*size.primitives, *size.word_problems)
    for seed in size.seeds:
        for model, score in SCORES.items():
            yield from (Value("accuracy", model, seed, score if holds else 0.4, task) for task in tasks)
            yield Value("nll", model, seed, {"baseline": 1.0, "middle": 1.1}.get(model, 1.2) if holds else 1.0)
            yield Value("training", model, seed, 8e12 if holds and model in ("midas", "lidas") else 1e13)
            yield from _inside(model, seed, model == "baseline" or not holds, holds and model == "full")
            yield from (
                Value("repeats", model, seed, 0.4 + (gain if holds else 0), task, x)
                for task in tasks
                for x, gain in enumerate((0, 0.2, 0.1, 0), 1)
            )
        for model in MATHS:
            cooled, gain = f"{model}+maths-a", SCORES[model] + MATHS[model] if holds else 0.4
            more = LOOPED[model] if holds else 0
            yield from (Value("accuracy", cooled, seed, gain, task) for task in tasks)
            yield from (
                Value("repeats", cooled, seed, gain - (0.1 * (x - 1) if holds else 0), task, x) for task in tasks for x in (1, 2, 3, 4)
            )
            yield from (Value("repeats", cooled + LOOP, seed, gain + more, task, x) for task in tasks for x in (1, 2, 3, 4))


def _inside(model: str, seed: int, plain: bool, fragile: bool) -> Iterator[Value]:
    visits = np.arange(13)
    curves = {
        "overlap": 0.9 - (visits < 12) * (0.0 if plain else 0.4),
        "early-exit": np.minimum(visits, 6) / 6 if plain else visits / 12,
        "norm": np.exp(0.3 * visits if plain else 0.1 * visits),
        "attention": visits[:12] % (3 if plain else 2),
        "swap": np.full(11, 0.2 if fragile else 0.8),
        "context": np.array([0.4, 0.4, 0.4] if plain else [0.4, 0.5, 0.6]),
    }
    yield Value("depth-score", model, seed, 4.0 if plain else 6.0)
    yield Value("unswapped", model, seed, 0.9)
    yield from (Value(what, model, seed, float(value), x=x) for what, curve in curves.items() for x, value in enumerate(curve))
    yield from (Value("local-effect", model, seed, float(v % (3 if plain else 2)), x=v, y=s) for v in range(12) for s in range(v))
    yield from (
        Value("sweep", model, seed, 0.0 if plain else 0.1, "copy-words-32", start, times) for start in range(11) for times in (2, 3)
    )
    yield from (Value("finetune", model, seed, 0.2 if plain or not n else 0.5, "var-code-0", n) for n in (0, 16, 64, 256))


def test_where_all_holds_every_claim_is_reproduced() -> None:
    table = Table(SIZES["quick"], list(world(True)))
    assert {claim.id: verdict(outcomes(claim, table)) for claim in CLAIMS} == {claim.id: REPRODUCED for claim in CLAIMS}


def test_where_models_are_the_same_none_is() -> None:
    table = Table(SIZES["quick"], list(world(False)))
    assert {claim.id: verdict(outcomes(claim, table)) for claim in CLAIMS} == {claim.id: NOISY for claim in CLAIMS}


def test_where_nothing_is_measured_all_say_so() -> None:
    table = Table(SIZES["quick"], [])
    assert {verdict(outcomes(claim, table)) for claim in CLAIMS} == {MISSING}


def test_a_cycle_is_seen_at_its_own_length() -> None:
    curve = np.tile([0.0, 1.0, 5.0, 2.0], 6)
    assert cycle(curve, 4) > 0.7
    assert cycle(curve, 4) > max(cycle(curve, lag) for lag in (1, 2, 3, 5, 6))
    assert cycle(np.arange(10.0), 2) == 0

"""Speed of evaluation as ratios against the LM evaluation harness's own ``hf`` model and our own scorer without sharing: ``make bench``.

Everything is measured in turn within one run; the smallest time of each counts, since a busy machine only ever adds. With
``OMP_NUM_THREADS=1`` the seconds are those that the process itself computed, which is what can be had where others compute too.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import loopkit_torch  # noqa: F401  (first: it says how threads wait)
import numpy as np
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

import loopkit
from loopkit import cost
from loopkit.data.tasks import Question, few_shot, find, named
from loopkit.evaluation.choice import answer, request
from loopkit.evaluation.sweep import Settings, candidates
from loopkit.inference.trie import build
from loopkit.report.plots import Series, lines
from loopkit.session import Model

PARTS = ("texts", "questions", "sweep", "growth")
TASKS, SHOTS = "copy-words,var-math-1", 5
clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def smallest(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least seconds of each call, all of them in turn every round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return {name: min(each) for name, each in times.items()}


def asked(tasks: str, count: int) -> list[Question]:
    """Five-shot questions, as many of each generated task."""
    return [question for task in named(tasks) for question in few_shot(find(task), 0, count, SHOTS)]


def ours(model: Model, questions: list[Question], plans: list[str | None]) -> np.ndarray:
    """Answers under all plans at once, bool ``[plans, questions]``."""
    right = np.empty((len(plans), len(questions)), bool)
    for batch in answer(model, questions, plans):
        right[:, list(batch.questions)] = batch.right
    return right


def theirs(peer: HFLM, questions: list[Question]) -> np.ndarray:
    """Answers of the harness's own model to the same prompts and options, bool ``[questions]``."""
    requests = [
        Instance("loglikelihood", {}, (question.prompt, " " + option), number)
        for question in questions
        for number, option in enumerate(question.options)
    ]
    found = [log for log, _ in peer.loglikelihood(requests, disable_tqdm=True)]
    parts = np.split(np.array(found), np.cumsum([len(question.options) for question in questions])[:-1])
    return np.array([part.argmax() == question.answer for part, question in zip(parts, questions, strict=True)])


def texts(model: Model, tasks: str, count: int) -> dict[str, float]:
    """What must be computed: ``hf`` runs options that differ in their last token alone as one text, we run a question once."""
    theirs_texts, theirs_tokens, our_tokens = 0, 0, 0
    questions = asked(tasks, count)
    for question in questions:
        heads = {tuple(model.tokenizer.encode(question.whole(option))[:-1]) for option in range(len(question.options))}
        theirs_texts, theirs_tokens = theirs_texts + len(heads), theirs_tokens + sum(map(len, heads))
        our_tokens += request(model, question).length
    return {"texts hf runs a question": theirs_texts / len(questions), "tokens hf runs over ours": theirs_tokens / our_tokens}


def questions_a_second(model: Model, peer: HFLM, tasks: str, count: int, rounds: int) -> dict[str, float]:
    """One plan: ours beside ``hf`` with one and with eight texts at a time, on the same questions with the same answers."""
    questions = asked(tasks, count)
    assert (ours(model, questions, [None])[0] == theirs(peer, questions)).all()

    def peer_by(size: int) -> None:
        peer.batch_size_per_gpu = size
        theirs(peer, questions)

    calls = {"ours": lambda: ours(model, questions, [None]), "hf 1": lambda: peer_by(1), "hf 8": lambda: peer_by(8)}
    times = smallest(calls, rounds)
    best = min(times["hf 1"], times["hf 8"])
    return {
        "questions/s": len(questions) / times["ours"],
        "hf questions/s, 1 at a time": len(questions) / times["hf 1"],
        "hf questions/s, 8 at a time": len(questions) / times["hf 8"],
        "over hf at its default, 1 at a time": times["hf 1"] / times["ours"],
        "over hf at its best": best / times["ours"],
    }


def sweep(model: Model, peer: HFLM, count: int, rounds: int) -> dict[str, float]:
    """Blocks of 4 at every start, once to three times: the engine beside every plan alone, and ``hf`` by its time for one plan."""
    questions = asked(TASKS, count)
    plans: list[str | None] = [None, *(each.plan for each in candidates(len(model.plan), Settings(named(TASKS))))]
    peer.batch_size_per_gpu = 8
    calls = {
        "engine": lambda: ours(model, questions, plans),
        "alone": lambda: [ours(model, questions, [plan]) for plan in plans],
        "hf": lambda: theirs(peer, questions),
    }
    times = smallest(calls, rounds)
    length = len(model.tokenizer.encode(questions[0].text))
    flops = [cost.token_flops(model.spec, model.resolve(plan), length / 2) for plan in plans]
    visits = [len(model.resolve(plan)) for plan in plans]
    return {
        "plans": len(plans),
        "visits alone over the trie's": sum(visits) / build([model.run(plan) for plan in plans]).size,
        "seconds a question": times["engine"] / len(questions),
        "over each plan alone": times["alone"] / times["engine"],
        "over hf (its time for one plan, by FLOPs)": times["hf"] * sum(flops) / flops[0] / times["engine"],
    }


def growth(model: Model, rounds: int) -> dict[str, tuple[list[int], list[float]]]:
    """Seconds by number of questions, and by number of distinct visits a question."""
    sizes = (2, 4, 8, 16)
    by_questions = smallest({str(n): lambda n=n: ours(model, asked("copy-words", n), [None, "8:12x2"]) for n in sizes}, rounds)
    every = [each.plan for each in candidates(len(model.plan), Settings(("copy-words",)))]
    sets = [[None, *every[: 2 * starts]] for starts in (0, 3, 9, 18, 27)]
    visits = [build([model.run(plan) for plan in plans]).size for plans in sets]
    pair = asked("copy-words", 2)
    by_visits = smallest({str(n): lambda plans=plans: ours(model, pair, plans) for n, plans in zip(visits, sets, strict=True)}, rounds)
    return {"questions": (list(sizes), list(by_questions.values())), "visits": (visits, list(by_visits.values()))}


def fit(x: list[int], y: list[float]) -> tuple[float, float, float]:
    """Intercept and slope of the least-squares line, and the largest distance from it as a share of the largest value."""
    slope, intercept = np.polyfit(x, y, 1)
    return intercept, slope, float(np.abs(intercept + slope * np.array(x) - y).max() / max(y))


def plot(found: dict[str, tuple[list[int], list[float]]], file: Path) -> None:
    """Both growths beside their lines, each as a share of its largest."""
    series = []
    for name, (x, y) in found.items():
        intercept, slope, _ = fit(x, y)
        share = np.array(x) / max(x)
        series.append(Series(f"{name} (up to {max(x)})", share, np.array(y) / max(y)))
        series.append(Series(f"line through {name}", share, (intercept + slope * np.array(x)) / max(y)))
    title = "Time grows in proportion to questions and to distinct visits"
    file.parent.mkdir(parents=True, exist_ok=True)
    lines(series, title=title, x="share of the largest number", y="share of the longest time").savefig(file)


def main() -> None:
    """Print every figure, a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="SmolLM2-135M-Instruct as a folder; converted afresh by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--count", type=int, default=8, help="questions of each task")
    parser.add_argument(
        "--tasks", nargs="+", default=["copy-words", "var-math-1", "copy-random", "primitives"], help="of the parts texts and questions"
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--plot", type=Path, help="where to put a picture of the growth, e.g. docs/img/evaluation-growth.svg")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        from loopkit.checkpoint.convert import convert

        folder = arguments.model or convert("smollm2-135m-instruct", Path(scratch) / "smol")
        model = loopkit.load(folder, "torch", "cpu", "float32")
        peer = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=1)
        print(json.dumps({"threads": torch.get_num_threads(), "load": os.getloadavg()}))
        if "texts" in arguments.parts:
            for task in arguments.tasks:
                show(task, texts(model, task, 20))
        if "questions" in arguments.parts:
            for task in arguments.tasks:
                show(task, questions_a_second(model, peer, task, arguments.count, arguments.rounds))
        if "sweep" in arguments.parts:
            show("sweep", sweep(model, peer, max(1, arguments.count // 4), arguments.rounds))
        if "growth" in arguments.parts:
            found = growth(model, arguments.rounds)
            for name, (x, y) in found.items():
                intercept, slope, residual = fit(x, y)
                seconds = {f"seconds at {n}": t for n, t in zip(x, y, strict=True)}
                show(f"by {name}", seconds | {"intercept": intercept, "slope": slope, "largest residual": residual})
            if arguments.plot:
                plot(found, arguments.plot)
        print(json.dumps({"load": os.getloadavg()}))


def show(part: str, figures: dict[str, float]) -> None:
    """One line a figure."""
    for name, value in figures.items():
        print(f"{part + ': ' + name:<62} {value:10.4f}", flush=True)


if __name__ == "__main__":
    main()

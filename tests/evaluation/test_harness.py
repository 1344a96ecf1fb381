"""The harness on a live model against the harness's own ``hf`` model on the same checkpoint, with local task files only."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from strategies import random_arrays, unrolled

import loopkit
from loopkit.checkpoint.folder import write_folder
from loopkit.cli import main
from loopkit.data.tokenizers import byte_codec
from loopkit.errors import LoopkitError, UsageError
from loopkit.evaluation import harness
from loopkit.evaluation.groups import GROUPS
from loopkit.session import Model
from loopkit.spec import preset

pytest.importorskip("lm_eval", reason="needs lm-eval: pip install 'loopkit-lm[lm-eval]'")
pytest.importorskip("transformers", reason="the harness's own model needs transformers")

SPEC = replace(preset("nano").with_layout("3"), max_position_embeddings=96)
PLANS = (None, "1:3x2", "0:2x3@damped")
DOCS = [
    {"question": "What rolls?", "answer": "a ball", "options": ["a ball", "a box", "both of them"], "right": 0},
    {"question": "What is 2 and 2?", "answer": "4", "options": ["3", "4", "22"], "right": 1},
    {"question": "Where is north?  ", "answer": "up", "options": ["down", "up", "up there"], "right": 2},
    {"question": "A question that is longer than all of the model's positions, " * 3, "answer": "no", "options": ["no", "yes"], "right": 1},
]
COMMON = """
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {data}}}, cache_dir: {cache}}}
validation_split: validation
fewshot_split: validation
"""
TASKS = {
    "local_likelihood": r"""
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: perplexity, higher_is_better: false}]
""",
    "local_choice": r"""
output_type: multiple_choice
doc_to_text: "Q: {{question}}\nA:"
doc_to_choice: "{{options}}"
doc_to_target: right
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "local_unconditional": r"""
output_type: loglikelihood
doc_to_text: ""
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
""",
    "local_rolling": r"""
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{answer}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
""",
    "local_writing": r"""
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\n", "e"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}


def turn(question: str, said: str, answers: list[str]) -> dict[str, Any]:
    """One question of a dialogue in the form of QuAC's own files."""
    spans = [{"text": answer, "answer_start": 0} for answer in answers]
    return {"id": question, "question": question, "answers": spans, "orig_answer": {"text": said, "answer_start": 0}}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of task files."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "docs.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    common = COMMON.format(data=folder / "docs.jsonl", cache=folder / "cache")
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}{common}{text}")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, and beside it the one with a layer for each visit of 1:3x2."""
    folder = tmp_path_factory.mktemp("harness")
    byte_codec().save(folder)
    arrays = random_arrays(SPEC)
    write_folder(folder / "model", SPEC, arrays, tokenizer=folder)
    write_folder(folder / "unrolled", *unrolled(SPEC, arrays, (0, 1, 2, 1, 2)), tokenizer=folder)
    return folder


@pytest.fixture(scope="module", params=["torch", "mlx"])
def model(request: pytest.FixtureRequest, folder: Path) -> Model:
    return loopkit.load(folder / "model", request.param, "cpu")


def huggingface(folder: Path) -> Any:
    """The harness's own model of a checkpoint."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=3)


def responses(results: dict[str, Any]) -> dict[tuple[str, int], list[Any]]:
    """What a model answered to each request of each document, in order."""
    return {(task, each["doc_id"]): [one[0] for one in each["resps"]] for task, found in results["samples"].items() for each in found}


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """The same answers up to rounding, and the same scores."""
    mine, other = responses(ours), responses(theirs)
    assert mine.keys() == other.keys()
    for key, answers in mine.items():
        for answer, expected in zip(answers, other[key], strict=True):
            if isinstance(expected, tuple):
                assert answer == (pytest.approx(expected[0], abs=1e-3), expected[1]), key
            elif isinstance(expected, float):
                assert answer == pytest.approx(expected, abs=1e-3), key
            else:
                assert answer == expected, key
    for task, scores in theirs["results"].items():
        for metric, value in scores.items():
            if isinstance(value, float):
                assert ours["results"][task][metric] == pytest.approx(value, rel=1e-3), (task, metric)


def loaded(tasks: Path, names: Sequence[str] = tuple(TASKS)) -> dict[str, Any]:
    """Several tasks as one, so that they run together."""
    each = harness.load_tasks(list(names), tasks)
    return {"tasks": {name: part["tasks"][name] for name, part in each.items()}, "groups": {}}


@pytest.mark.parametrize("shots", [0, 1])
def test_every_kind_of_task_agrees_with_the_harness_own_model(model: Model, folder: Path, tasks: Path, shots: int) -> None:
    from loopkit.evaluation.harness_model import HarnessModel, Scores

    ours = harness.run(HarnessModel(Scores(model, [model.run()]), 0), loaded(tasks), None, shots, 0, log_samples=True)
    theirs = harness.run(huggingface(folder / "model"), loaded(tasks), None, shots, 0, log_samples=True)
    assert_same(ours, theirs)
    assert len({str(each) for each in responses(ours).values()}) > len(DOCS)


def test_a_loop_agrees_with_the_harness_on_the_unrolled_checkpoint(model: Model, folder: Path, tasks: Path) -> None:
    from loopkit.evaluation.harness_model import HarnessModel, Scores

    scores = Scores(model, [model.run(plan) for plan in PLANS])
    results = [harness.run(HarnessModel(scores, index), loaded(tasks), None, 0, 0, log_samples=True) for index in range(len(PLANS))]
    assert_same(results[1], harness.run(huggingface(folder / "unrolled"), loaded(tasks), None, 0, 0, log_samples=True))
    likelihoods = [responses(each)["local_choice", 0][0][0] for each in results]
    assert len(set(likelihoods)) == len(PLANS)


def test_what_one_plan_asks_is_computed_for_all(model: Model, tasks: Path) -> None:
    from loopkit.evaluation.harness_model import HarnessModel, Scores

    class Counting(Scores):
        batches = 0

        def _compute(self, pairs: Sequence[Any]) -> None:
            self.batches += bool(pairs)
            super()._compute(pairs)

    several = Counting(model, [model.run(plan) for plan in PLANS])
    for index, plan in enumerate(PLANS):
        alone = HarnessModel(Scores(model, [model.run(plan)]), 0)
        for kind in ("local_choice", "local_rolling"):
            together = harness.run(HarnessModel(several, index), loaded(tasks, [kind]), None, 0, 0, log_samples=True)
            assert_same(together, harness.run(alone, loaded(tasks, [kind]), None, 0, 0, log_samples=True))
    assert several.batches == 2


def test_long_texts_without_a_context_have_rows_of_their_own() -> None:
    from loopkit.evaluation.harness_model import FORKED, _requests

    rows = [((0,), tuple(range(size))) for size in (700, 700, 5, FORKED + 50, 300)]
    made = _requests([*rows, ((0, 1), (2,)), ((0,), (9,))])
    assert [[len(option) for option in each.options] for each in made] == [[700], [700, 5], [FORKED + 50], [300, 1], [1]]
    assert [each.prompt for each in made] == [(0,)] * 4 + [(0, 1)]


def test_what_is_done_is_told(model: Model, tasks: Path) -> None:
    told: list[tuple[int, int]] = []
    for task, first, last in (("local_choice", (0, 11), (11, 11)), ("local_rolling", (0, 5), (5, 5)), ("local_writing", (0, 4), (4, 4))):
        told.clear()
        harness.measure(model, harness.load_tasks([task], tasks)[task], PLANS, progress=lambda *done: told.append(done))
        assert (told[0], told[-1]) in {(first, last), (first, (0, 0))}  # of likelihoods nothing is left for the later plans
        assert last in told
        assert told.count(first) == (len(PLANS) if task == "local_writing" else 1)
        between = told[: told.index(last) + 1]
        assert between == sorted(between)


def test_measures_say_what_they_are(model: Model, tasks: Path) -> None:
    found = harness.measure(model, harness.load_tasks(["local_choice"], tasks)["local_choice"], PLANS, limit=3)
    assert [each.plan for each in found if each.metric == "acc"] == ["3", "1:3x2", "0:2x3@damped"]
    first = found[0]
    assert (first.task, first.metric, first.questions, first.shots, first.truncated) == ("local_choice", "acc", 3, 0, 0)
    assert first.higher_is_better
    assert first.stderr is not None
    assert first.interval == pytest.approx((first.value - 1.96 * first.stderr, first.value + 1.96 * first.stderr), abs=1e-4)


@pytest.mark.parametrize(("task", "cut"), [("local_choice", 2), ("local_likelihood", 1), ("local_writing", 1), ("local_rolling", 0)])
def test_what_is_cut_is_counted(model: Model, tasks: Path, task: str, cut: int) -> None:
    assert {each.truncated for each in harness.measure(model, harness.load_tasks([task], tasks)[task], PLANS)} == {cut}


def test_drawn_text_follows_the_seed(model: Model) -> None:
    from lm_eval.api.instance import Instance

    from loopkit.evaluation.harness_model import HarnessModel, Scores

    def written(seed: int, **settings: object) -> list[str]:
        lm = HarnessModel(Scores(model, [model.run()]), 0, seed)
        asked = [Instance("generate_until", {}, ("To be", {"max_gen_toks": 8, **settings}), number) for number in range(2)]
        return lm.generate_until(asked, disable_tqdm=True)

    first, again, other = (written(seed, do_sample=True, temperature=1.0) for seed in (0, 0, 10))
    assert first == again
    assert first != other
    assert first[0] != first[1]  # a task that repeats a question wants several draws
    assert written(0) == written(10) == written(0, do_sample=False, temperature=1.0)


def test_settings_of_generation() -> None:
    from loopkit.evaluation.harness_model import Generation, generation

    assert generation({}) == Generation((), 256, 0.0)
    assert generation({"until": "x", "max_new_tokens": 3, "temperature": 0.5, "top_p": 1}) == Generation(("x",), 3, 0.5)
    assert generation({"until": ["", "y"], "do_sample": False, "temperature": 0.5}) == Generation(("y",), 256, 0.0)
    with pytest.raises(UsageError, match="top_p"):
        generation({"do_sample": True, "temperature": 1.0, "top_p": 0.9})
    with pytest.raises(UsageError, match="temperature above 0"):
        generation({"do_sample": True})


def test_a_text_that_cannot_be_scored(model: Model) -> None:
    from loopkit.evaluation.harness_model import HarnessModel, Scores

    lm = HarnessModel(Scores(model, [model.run()]), 0)
    with pytest.raises(UsageError, match="1 to 96"):
        lm._loglikelihood_tokens([("", (1,), (2,) * 97)])
    (whole,) = lm._loglikelihood_tokens([("", (1, 2), (3,) * 96)], disable_tqdm=True)
    assert whole == lm._loglikelihood_tokens([("", (2,), (3,) * 96)], disable_tqdm=True)[0]
    assert lm.truncated == 1


def test_names_that_do_not_exist_and_groups_that_do() -> None:
    named = [task for name, group in GROUPS.items() if name != "paper/primitives" for task in group.tasks]
    with pytest.raises(UsageError, match=r"'lambada_opnai'; nearest: .*lambada_openai"):
        harness.load_tasks([*named, "lambada_opnai"])
    with pytest.raises(UsageError, match="not a folder"):
        harness.load_tasks(["x"], Path("nowhere"))


@pytest.mark.parametrize(
    ("task", "row", "prompt", "target"),
    [
        ("svamp", {"Body": "Two.", "Question": "How many?", "Answer": "2.0"}, "Two.\nQuestion:How many?\nAnswer:", "2"),
        ("svamp", {"Body": "Two.", "Question": "How many?", "Answer": "2.5"}, "Two.\nQuestion:How many?\nAnswer:", "2.5"),
        ("mawps", {"question": "How many?", "result": "2"}, "Question:How many?\nAnswer:", "2"),
        (
            "tydiqa_nocontext_en",
            {"id": "english-1", "question": "Who?", "context": "c", "answers": {"text": ["a", "b"], "answer_start": [0, 1]}},
            "Question: Who?\nAnswer:",
            ["a", "b"],
        ),
        (
            "quac",
            {
                "title": "The pond",
                "section_title": "Fish",
                "background": "A pond.",
                "paragraphs": [
                    {
                        "context": "There are carp in it. CANNOTANSWER",
                        "qas": [
                            turn("Any fish?", "There are carp", ["There are carp", "carp"]),
                            turn("What do they weigh?", "CANNOTANSWER", ["CANNOTANSWER", "carp", "CANNOTANSWER", "in it"]),
                        ],
                    }
                ],
            },
            "The pond: Fish\n\nThere are carp in it. CANNOTANSWER\n\nQ: Any fish?\n\nA: There are carp\n\nQ: What do they weigh?\n\nA:",
            "CANNOTANSWER",
        ),
    ],
)
def test_our_own_files_on_rows_of_their_data(tmp_path: Path, task: str, row: dict[str, Any], prompt: str, target: object) -> None:
    rows = [row, row | {"id": "finnish-1"}]
    file = Path(harness.__file__).parent / "harness_tasks" / f"{task}.yaml"
    whole = "field: data" in file.read_text()
    (tmp_path / "rows").write_text(json.dumps({"data": rows}) if whole else "".join(json.dumps(each) + "\n" for each in rows))
    data = {"data_files": dict.fromkeys(("train", "test", "validation"), str(tmp_path / "rows")), "cache_dir": str(tmp_path / "c")}
    local = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": data | ({"field": "data"} if whole else {})}
    (tmp_path / "local.yaml").write_text(
        f"include: {file}\ntask: local\n" + "".join(f"{name}: {json.dumps(value)}\n" for name, value in local.items())
    )
    made = harness.load_tasks(["local"], tmp_path)["local"]["tasks"]["local"]
    docs = list(made.eval_docs)
    assert len(docs) == {"tydiqa_nocontext_en": 1, "quac": 4}.get(task, 2)
    asked = docs[1] if task == "quac" else docs[0]
    assert (made.doc_to_text(asked), made.doc_to_target(asked)) == (prompt, target)
    if task == "quac":
        assert made.doc_to_text(docs[0]) == prompt.split(" There are carp\n")[0]
        assert docs[0]["references"] == ["There are carp", "carp"]
        assert [made.process_results(asked, [said]) for said in (" CANNOTANSWER", " in it")] == [{"f1": 1.0}, {"f1": 0.0}]


def test_f1_of_quac() -> None:
    """By hand; with several references each is left out once and the best of the others counts."""
    from loopkit.evaluation.harness_tasks import quac

    assert quac.f1("The red, red house!", "a house: red") == pytest.approx(2 * 2 / (3 + 2))
    assert quac.f1("", "red") == quac.f1("blue", "red") == 0.0
    assert quac.held_out_f1("red", ["red"]) == 1.0
    assert quac.held_out_f1("red", ["red", "blue", "red house"]) == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert quac.agreement(["red", "red", "blue"]) == pytest.approx(2 / 3)
    assert quac.references_of(["CANNOTANSWER", "a"]) == ["CANNOTANSWER"]
    assert quac.references_of(["CANNOTANSWER", "a", "b"]) == ["a", "b"]


def test_questions_on_which_people_differ_are_left_out() -> None:
    from datasets import Dataset

    from loopkit.evaluation.harness_tasks import quac

    asked = [turn("Same?", "red", ["red", "red"]), turn("Other?", "blue", ["blue", "green"]), turn("Last?", "x", ["x"])]
    rows = [{"title": "t", "section_title": "s", "paragraphs": [{"context": "c", "qas": asked}]}]
    found = quac.questions(Dataset.from_list(rows))
    assert found["question"] == ["Same?", "Last?"]
    assert found["dialogue"][1] == "Q: Same?\n\nA: red\n\nQ: Other?\n\nA: blue\n\n"


def test_without_the_harness_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(LoopkitError, match=re.escape("pip install 'loopkit-lm[lm-eval]'")):
        harness.load_tasks(["hellaswag"])


class TestCommand:
    """``loopkit eval`` as a person types it."""

    @pytest.fixture
    def typed(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
        """Type a command; get exit code, stdout and stderr."""
        monkeypatch.setenv("COLUMNS", "100")

        def run(*arguments: object) -> tuple[int, str, str]:
            monkeypatch.setattr(sys, "argv", ["loopkit", "eval", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                main()
            return int(ended.value.code or 0), *capsys.readouterr()

        return run

    def test_own_and_harness_tasks_side_by_side(self, typed: Any, folder: Path, tasks: Path) -> None:
        asked = ("--tasks", "local_choice,var-basic-0", "--include-path", tasks, "--plan", "1:3x2", "--limit", 2, "--shots", 0)
        code, out, _ = typed(folder / "model", *asked, "--json")
        rows = json.loads(out)
        assert code == 0
        assert [(row["task"], row["plan"]) for row in rows if row.get("metric") != "acc_norm"] == [
            (task, plan) for task in ("local_choice", "var-basic-0") for plan in ("3", "1:3x2")
        ]
        own = rows[-1]
        assert own.keys() == {"checkpoint", "task", "plan", "correct", "questions", "chance", "accuracy", "interval"}
        assert rows[0].keys() >= {"checkpoint", "task", "plan", "metric", "value", "stderr", "interval", "questions", "truncated"}
        code, out, _ = typed(folder / "model", *asked)
        assert code == 0
        assert out.startswith(f"{folder / 'model'}, with 95% intervals\n")

    def test_a_terminal_shows_what_is_done(self, folder: Path, tasks: Path) -> None:
        """Questions of each task, of its own requests where it is the harness's, in a real terminal; nothing of it elsewhere."""
        asked = ("--tasks", "local_choice,var-basic-0", "--include-path", tasks, "--limit", 3, "--shots", 0, "--backend", "torch", "--json")
        command = [str(Path(sys.executable).parent / "loopkit"), "eval", *map(str, (folder / "model", *asked))]
        shown = on_a_terminal(command)
        for task, counted in (("local_choice (1 of 2)", "9/9"), ("var-basic-0 (2 of 2)", "3/3")):
            assert re.search(rf"{re.escape(task)} .* {counted} .*left", shown), shown
        assert "/100" not in shown
        quiet = subprocess.run(command, capture_output=True, text=True, check=True)
        assert {row["task"] for row in json.loads(quiet.stdout)} == {"local_choice", "var-basic-0"}
        assert not re.search(r"\r|left|\d/\d|it/s", quiet.stderr)

    def test_data_that_cannot_be_had(self, typed: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import datasets

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
        (tmp_path / "far.yaml").write_text(f"task: far\ndataset_path: loopkit/nothing{TASKS['local_choice']}validation_split: test\n")
        code, _, err = typed(folder / "model", "--tasks", "far", "--include-path", tmp_path)
        assert code == 1
        assert "the data of task 'far' cannot be had" in err.splitlines()[-1]

    def test_what_is_done_is_shown_before_a_failure(self, typed: Any, folder: Path, tmp_path: Path) -> None:
        code, out, err = typed(folder / "model", tmp_path, "--tasks", "var-basic-0", "--count", 2, "--shots", 0, "--json")
        assert (code, len(json.loads(out))) == (1, 1)
        assert err.startswith("error: ")


def on_a_terminal(command: list[str]) -> str:
    """What a command writes to a stderr that is a wide terminal, without its control codes."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, env=os.environ | {"TERM": "xterm"}) as process:
        os.close(theirs)
        written = b""
        while piece := _read(ours):
            written += piece
        assert process.wait() == 0
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_the_real_model_agrees_with_the_harness_own(smollm: Path, tasks: Path) -> None:
    from loopkit.evaluation.harness_model import HarnessModel, Scores

    model = loopkit.load(smollm, "torch", "cpu")
    names = ["local_choice", "local_likelihood", "local_rolling"]
    ours = harness.run(HarnessModel(Scores(model, [model.run()]), 0), loaded(tasks, names), 3, 0, 0, log_samples=True)
    assert_same(ours, harness.run(huggingface(smollm), loaded(tasks, names), 3, 0, 0, log_samples=True))

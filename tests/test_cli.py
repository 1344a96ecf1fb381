"""The commands as a person types them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from commands import Run
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

import loopkit
from loopkit.checkpoint.folder import open_folder, write_folder
from loopkit.checkpoint.initial import initialize
from loopkit.spec import preset


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a byte-level tokenizer."""
    folder = tmp_path_factory.mktemp("cli")
    spec = preset("nano").with_layout("4")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({symbol: i for i, symbol in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    (folder / "source").mkdir()
    tokenizer.save(str(folder / "source" / "tokenizer.json"))
    return write_folder(folder / "tiny", spec, initialize(spec), tokenizer=folder / "source")


def test_the_command_itself() -> None:
    out = subprocess.run([Path(sys.executable).parent / "loopkit", "--version"], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("loopkit ")


@pytest.mark.parametrize("command", ["convert", "inspect", "generate", "loop", "compare", "context", "finetune", "doctor"])
def test_help_has_an_example(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.code == 0
    assert f"loopkit {command}" in result.out.split("Usage", 1)[1].split("\n", 1)[1]


def test_no_command_is_misuse(run: Run) -> None:
    assert run().code == 2
    assert run("lop").code == 2


def test_inspect(run: Run, tiny: Path) -> None:
    shown = run("inspect", tiny, "--plan", "1:3x3")
    assert shown.code == 0
    assert "layers 1-2" in shown.out
    assert "x3" in shown.out
    facts = json.loads(run("inspect", tiny, "--plan", "1:3x3", "--json").out)
    assert facts["plan"] == [0, 1, 2, 1, 2, 1, 2, 3]
    assert (facts["visits"], facts["unique_layers"]) == (8, 4)
    assert json.loads(run("inspect", "smollm-1.7b", "--layout", "4x6", "--json").out)["unique_layers"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("inspect", "nowhere"), 2, "neither a checkpoint folder nor a preset"),
        (("inspect", "nano", "--plan", "6:10x2"), 2, "range 6:10 is outside this plan of 8 visits"),
        (("inspect", "nano", "--layout", "4-x"), 2, "bad part 'x'"),
        (("generate", "nowhere", "--prompt", "a"), 1, "nowhere does not exist; make a checkpoint with"),
        (("generate", "{tiny}", "--prompt", ""), 2, "the text is empty"),
        (("generate", "{tiny}", "--prompt", "a", "--plan", "2:9x2"), 2, "range 2:9 is outside"),
        (("generate", "{tiny}", "--prompt", "a", "--backend", "jax"), 2, "backends are auto, mlx, torch"),
        (("generate", "{tiny}", "--prompt", "a", "--backend", "torch", "--device", "tpu"), 2, "has no device 'tpu' here"),
        (("generate", "{tiny}", "--prompt", "a", "--temperature", "-1"), 2, "temperature must be 0 or more"),
        (("generate", "{tiny}", "--prompt", "a", "--chat"), 1, "no chat template"),
        (("generate", "{tiny}", "--prompt", "a", "--dtype", "int3"), 2, "no dtype 'int3'"),
        (("loop", "{tiny}", "--repeat", "1:2x2"), 2, "give either --prompt"),
        (("loop", "{tiny}", "--prompt", "a"), 2, "--repeat 8:12x2, or --sweep"),
        (("loop", "{tiny}", "--repeat", "1:2x2@dumped", "--prompt", "a"), 2, "no mode 'dumped'"),
        (("loop", "{tiny}", "--repeat", "1:2x2", "--mode", "dumped", "--prompt", "a"), 2, "modes are plain, damped, residual"),
        (("loop", "{tiny}", "--repeat", "1:2x2", "--prompt", "a", "--count", "9"), 2, "--count goes with --sweep"),
        (("generate", "{tiny}", "--prompt", "a", "--until", "kl<1e-3"), 2, "--until needs one block"),
        (("generate", "{tiny}", "--prompt", "a", "--plan", "1:3x4", "--until", "kl<0"), 2, "must be a number above 0"),
        (("loop", "{tiny}", "--repeat", "1:3x4", "--prompt", "a", "--until", "settled"), 2, "no stopping rule 'settled'"),
        (("loop", "{tiny}", "--sweep", "--prompt", "a"), 2, "--prompt goes with --repeat"),
        (("loop", "{tiny}", "--sweep", "--search"), 2, "exclude each other"),
        (("loop", "{tiny}", "--sweep", "--tie"), 2, "--tie goes with --export"),
        (("loop", "{tiny}", "--sweep", "--block", "5"), 2, "block of 5 does not fit a plan of 4 visits"),
        (("loop", "{tiny}", "--sweep", "--block", "two"), 2, "cannot read --block 'two'"),
        (("loop", "{tiny}", "--sweep", "--task", "copy-wrods"), 2, "nearest: copy-words"),
        (("loop", "{tiny}", "--sweep", "--shots", "500"), 1, "do not fit the model's"),
        (("loop", "{tiny}", "--sweep", "--export", "{tiny}"), 2, "exists already"),
        (("compare", "nowhere", "--tasks", "copy-words"), 1, "nowhere does not exist"),
        (("compare", "{tiny}", "--tasks", "copy-words", "--data", "file:none.txt"), 2, "none.txt"),
        (("context", "{tiny}", "--shots", "many"), 2, "cannot read --shots 'many'"),
        (("finetune", "{tiny}", "--out", "out", "--examples", "0,x"), 2, "cannot read --examples"),
        (("loop", "{tiny}", "--repeat", "1:2", "--prompt", "a"), 2, "bad part '1:2'"),
        (("loop", "{tiny}", "--repeat", "1:2x2", "--text", "nowhere.txt"), 1, "cannot read nowhere.txt"),
        (("convert", "nowhere", "dst"), 2, "nowhere does not exist"),
        (("convert", "{tiny}", "{tiny}"), 2, "exists already; choose another name, or --force"),
        (("convert", "{tiny}", "dst", "--plan", "1:2x2"), 2, "exactly one of --unroll"),
        (("convert", "{tiny}", "dst", "--plan", "1:9x2", "--tie"), 2, "range 1:9 is outside"),
        (("convert", "{tiny}", "dst", "--quantize", "3"), 2, "choose 4 or 8"),
        (("doctor", "nowhere"), 1, "nowhere does not exist"),
        (("eval", "{tiny}", "--tasks", " ,"), 2, "no task is named"),
        (("context", "{tiny}", "--tasks", ""), 2, "no task is named"),
        (("context", "{tiny}", "--tasks", "copy-words,copi-words"), 2, "nearest: copy-words"),
    ],
)
def test_mistakes_are_one_line(
    run: Run, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(argument.format(tiny=tiny) for argument in arguments))
    assert (result.code, result.out) == (code, "")
    assert said in result.err
    assert result.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("until", [(), ("--plan", "1:3x2", "--until", "kl<1e-3")])
def test_generation_ends_where_the_positions_do(run: Run, tiny: Path, until: tuple[str, ...]) -> None:
    model = loopkit.load(tiny, "torch")
    prompt = "a" * (model.spec.max_position_embeddings - 3)
    ids = model.prompt_ids(prompt)
    left = model.spec.max_position_embeddings - len(ids)
    assert len(list(model.generate_ids(ids, max_tokens=50))) == left + 1
    shown = run("generate", tiny, "--prompt", prompt, "--backend", "torch", *until)
    assert (shown.code, "positions are used up" in shown.err) == (0, True)
    short = run("generate", tiny, "--prompt", "a", "--max-tokens", 3, "--backend", "torch", *until)
    assert (short.code, "positions" in short.err) == (0, False)


def test_generate_streams_the_same_text_on_both_backends(run: Run, tiny: Path) -> None:
    texts = []
    for backend in ("torch", "mlx"):
        arguments = ("generate", tiny, "--prompt", "abc", "--max-tokens", 12, "--temperature", 1, "--seed", 3, "--backend", backend)
        plain, as_json = run(*arguments), json.loads(run(*arguments, "--json").out)
        assert plain.out == as_json["text"] + "\n"
        texts.append(plain.out)
    assert texts[0] == texts[1]


def test_a_block_runs_until_it_settles(run: Run, tiny: Path) -> None:
    arguments = (tiny, "--prompt", "abc", "--max-tokens", 6, "--until", "latent<1e-9")
    found = json.loads(run("generate", *arguments, "--plan", "1:3x3", "--json").out)
    assert found["passes"] == {"3": 6}
    plain = json.loads(run("generate", *arguments[:5], "--plan", "1:3x3", "--json").out)
    assert found["text"] == plain["text"]
    looped = json.loads(run("loop", *arguments, "--repeat", "1:3x3", "--json").out)
    assert (looped["passes"], looped["continuations"]["looped"]) == (found["passes"], found["text"])
    assert "3 for 6 tokens" in run("generate", *arguments, "--plan", "1:3x3").err


def test_loop_compares(run: Run, tiny: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the same words", encoding="utf-8")
    arguments = ("loop", tiny, "--repeat", "1:3x2", "--text", text, "--max-tokens", 4)
    shown, result = run(*arguments), json.loads(run(*arguments, "--json").out)
    assert shown.code == 0
    assert "KL(base || looped)" in shown.out
    assert result["looped_plan"] == "1:3x2"
    assert result["kl"] > 0
    assert result["nll_base"] != result["nll_looped"]
    assert set(result["continuations"]) == {"base", "looped"}
    assert json.loads(run(*arguments[:-1], 0, "--json").out)["continuations"] == {"base": "", "looped": ""}
    damped = json.loads(run("loop", tiny, "--repeat", "1:3x2", "--mode", "damped", *arguments[4:], "--json").out)
    assert damped["looped_plan"] == "1:3x2@damped"
    assert damped["kl"] != result["kl"]
    same = json.loads(run("loop", tiny, "--repeat", "1:3x1", "--text", text, "--max-tokens", 4, "--json").out)
    assert same["kl"] == 0
    assert same["nll_base"] == same["nll_looped"] == result["nll_base"]
    assert same["continuations"]["looped"] == same["continuations"]["base"]


def test_a_sweep_keeps_its_answers_and_exports_the_best(run: Run, tiny: Path, tmp_path: Path) -> None:
    options = ("--sweep", "--block", 2, "--times", "1..2", "--task", "var-basic-0", "--count", 9, "--shots", 0, "--backend", "torch")
    arguments = ("loop", tiny, *options, "--out", tmp_path / "sweep")
    found = json.loads(run(*arguments, "--json").out)
    assert [row["plan"] for row in found["rows"]] == ["4", "0:2x2", "1:3x2", "2:4x2"]
    assert (tmp_path / "sweep/sweep.html").read_text().count("<svg") == 1
    again = run(*arguments, "--export", tmp_path / "best", "--tie")
    assert again.code == 0
    assert "1:3x2" in again.out
    best = max(found["rows"], key=lambda row: (row["correct"], row["probability"]))
    assert open_folder(tmp_path / "best").spec.layout == {"4": "4", "0:2x2": "2x2-2", "1:3x2": "1-2x2-1", "2:4x2": "2-2x2"}[best["plan"]]
    assert run(*arguments, "--count", 10).code == 2


def test_a_search_finds_a_plan(run: Run, tiny: Path) -> None:
    arguments = ("loop", tiny, "--search", "--block", "1..2", "--times", "2", "--task", "var-basic-0", "--count", 4, "--shots", 0)
    found = json.loads(run(*arguments, "--budget", 10, "--backend", "torch", "--json").out)
    assert len(found["tried"]) <= 10
    assert found["heldout"]["questions"] == 4
    assert "the winner on new questions" in run(*arguments, "--budget", 10, "--backend", "torch").out


def test_convert_unrolls_and_ties(run: Run, tiny: Path, tmp_path: Path) -> None:
    for how, layout in (("--unroll", "6"), ("--tie", "1-2x2-1")):
        target = tmp_path / how.strip("-")
        assert json.loads(run("convert", tiny, target, "--plan", "1:3x2", how, "--json").out)["layout"] == layout
        assert open_folder(target).spec.layout == layout
        assert run("generate", target, "--prompt", "a", "--max-tokens", 2).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tie", "unroll"]


def test_convert_quantizes_for_mlx(run: Run, tiny: Path, tmp_path: Path) -> None:
    assert run("convert", tiny, tmp_path / "q", "--quantize", 8).code == 0
    assert run("generate", tmp_path / "q", "--prompt", "a", "--max-tokens", 2, "--backend", "mlx").code == 0
    refused = run("generate", tmp_path / "q", "--prompt", "a", "--backend", "torch")
    assert refused.code == 1
    assert "--backend mlx" in refused.err


def test_doctor_compares_both_backends(run: Run, tiny: Path) -> None:
    report = json.loads(run("doctor", tiny, "--plan", "1:3x2", "--json").out)
    assert set(report["backends"]) == {"mlx", "torch"}
    assert report["parity"]["agree"]
    assert report["parity"]["plan"] == "1:3x2"
    assert "backends agree" in run("doctor").out


def test_the_tour_on_the_real_model(run: Run, smollm: Path) -> None:
    answer = run("generate", smollm, "--chat", "--prompt", "What is 2+2?", "--max-tokens", 20)
    assert "4" in answer.out
    result = json.loads(run("loop", smollm, "--repeat", "8:12x2", "--prompt", "The capital of France is", "--max-tokens", 5, "--json").out)
    assert result["candidates"][0]["text"] == " Paris"
    assert result["candidates"][0]["base"] > 0.5
    assert np.isfinite([result["kl"], result["nll_looped"]]).all()

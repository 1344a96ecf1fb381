"""Every probe on both backends: the same numbers to 1e-4, and back from disk as they were."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from strategies import random_ids

from loopkit.backend import Backend
from loopkit.data.tasks import few_shot, find
from loopkit.errors import LoopkitError, UsageError
from loopkit.probes import PROBES, Budget, evaluate_lens, find_probe, train_lens
from loopkit.probes.result import Result, load, save, to_json
from loopkit.session import Model

OPTIONS: dict[str, dict[str, Any]] = {"repeat": {"size": 2}, "depth-score": {"cuts": 2}, "local-effects": {"cuts": 2}}
TASKED = ("swap", "skip", "repeat")
PLAN = "1:3x3"


def found_by(name: str, model: Model) -> Result:
    ids = random_ids(model.spec, 2, 29)
    questions = few_shot(find("var-basic-0"), 0, 2, 0)
    if name == "tuned-lens":
        lens = train_lens(model, random_ids(model.spec, 4, 29, seed=2), PLAN, budget=Budget(640, 64))
        return evaluate_lens(model, ids, lens, PLAN, questions=questions)
    tasked = {"questions": questions} if name in TASKED else {}
    return PROBES[name].run(model, ids, PLAN, **OPTIONS.get(name, {}), **tasked)


@pytest.mark.parametrize("name", PROBES)
def test_backends_agree_and_results_survive(pair: list[tuple[Backend, str]], make: Any, name: str, tmp_path: Path) -> None:
    first, second = (found_by(name, make(backend)) for backend, _ in pair)
    assert type(first) is type(second) is PROBES[name].kind
    save(first, tmp_path / name)
    again = load(type(first), tmp_path / name)
    for field in dataclasses.fields(first):
        a, b, c = (getattr(each, field.name) for each in (first, second, again))
        if isinstance(a, (np.ndarray, float)):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-4, err_msg=field.name)
            np.testing.assert_allclose(c, a, rtol=1e-6, err_msg=field.name)
            if isinstance(a, np.ndarray):
                np.testing.assert_array_equal(c, a)
                assert c.dtype == a.dtype
        else:
            assert a == b == c
    assert first.headline.keys() == again.headline.keys()
    assert [chart.title for chart in again.charts] == [chart.title for chart in first.charts]
    assert first.charts


def test_json_is_json(model: Model, tmp_path: Path) -> None:
    result = PROBES["local-effects"].run(model, random_ids(model.spec, 1, 29))
    save(result, tmp_path / "local")
    text = (tmp_path / "local.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    assert found == json.loads(json.dumps(to_json(result)))
    assert found["probe"] == "local-effects"
    assert found["matrix"][3][2] is None
    assert found["matrix"][0][1] == pytest.approx(result.matrix[0, 1], rel=1e-6)


def test_what_is_no_result_is_refused(model: Model, tmp_path: Path) -> None:
    save(PROBES["residual-norms"].run(model, random_ids(model.spec, 1, 9)), tmp_path / "norms")
    with pytest.raises(LoopkitError, match="it is of probe residual-norms"):
        load(PROBES["swap"].kind, tmp_path / "norms")
    (tmp_path / "norms.json").write_text("{", encoding="utf-8")
    with pytest.raises(LoopkitError, match="hold no result of residual-norms"):
        load(PROBES["residual-norms"].kind, tmp_path / "norms")
    with pytest.raises(UsageError, match="nearest: depth-score"):
        find_probe("dept-score")

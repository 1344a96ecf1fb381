"""What only MLX has: quantized weights, one setting for the device, and the BLAS it is given on Linux."""

import os
import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from strategies import random_arrays, random_ids

from loopkit.backend import Backend
from loopkit.errors import LoopkitError
from loopkit.inference.passes import forward
from loopkit.run import Run
from loopkit.sampling import Sampling
from loopkit.spec import Spec

mx = pytest.importorskip("mlx.core")
pytestmark = pytest.mark.usefixtures("mlx")
SPEC = Spec(64, 128, 4, 2, 16, 101, "3", attention_bias="qkv", tie_word_embeddings=False)
linux_only = pytest.mark.skipif(platform.system() != "Linux", reason="the BLAS of MLX's Linux wheel")


def quantized(arrays: dict[str, np.ndarray], bits: int, group: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every matrix packed as mlx-lm writes it, and the numbers that the packed ones stand for."""
    packed, plain = {}, {}
    for name, array in arrays.items():
        if array.ndim != 2:
            packed[name] = plain[name] = array
            continue
        weight, scales, biases = mx.quantize(mx.array(array), group_size=group, bits=bits)
        stem = name.removesuffix("weight")
        packed |= {name: np.array(weight), stem + "scales": np.array(scales), stem + "biases": np.array(biases)}
        plain[name] = np.array(mx.dequantize(weight, scales, biases, group_size=group, bits=bits))
    return packed, plain


@pytest.mark.parametrize(("bits", "group"), [(4, 64), (8, 64), (4, 32), (8, 32), (2, 64), (3, 64), (6, 32)])
@pytest.mark.parametrize("tied", [False, True])
def test_quantized_weights_compute_what_they_stand_for(mlx: Backend, bits: int, group: int, tied: bool) -> None:
    spec = replace(SPEC, tie_word_embeddings=tied)
    packed, plain = quantized(random_arrays(spec), bits, group)
    run = Run((0, 1, 1, 2))
    found, expected = (forward(mlx, mlx.put(arrays, "cpu", "float32"), spec, random_ids(spec), run)[0] for arrays in (packed, plain))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_packed_integers_keep_their_type_whatever_the_dtype(mlx: Backend) -> None:
    packed, _ = quantized(random_arrays(SPEC), 4, 64)
    for dtype in ("float32", "bfloat16"):
        weights = mlx.put(packed, "cpu", dtype)
        name = "model.layers.0.mlp.up_proj."
        back = mlx.get(weights, [name + "weight", name + "scales"])
        np.testing.assert_array_equal(back[name + "weight"], packed[name + "weight"])
        assert back[name + "scales"].dtype.name == dtype
        assert len(list(mlx.stream(weights, SPEC, [1, 2, 3], Run((0, 1, 1)), (0, 1, 2), 4, Sampling()))) == 4


def test_quantized_kinds_without_biases_are_refused(mlx: Backend) -> None:
    packed, _ = quantized(random_arrays(SPEC), 4, 64)
    del packed["lm_head.biases"]
    with pytest.raises(LoopkitError, match=r"lm_head\.scales"):
        mlx.put(packed, "cpu", "float32")


def blas(variable: str | None, first: str = "pass") -> subprocess.CompletedProcess[str]:
    """A fresh process that says which BLAS the backend has and whether torch was imported."""
    code = f"{first}; import loopkit_mlx, sys; print(loopkit_mlx.versions()['BLAS'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "LOOPKIT_MLX_BLAS"}
    environment |= {} if variable is None else {"LOOPKIT_MLX_BLAS": variable}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)


@linux_only
def test_torch_lends_its_blas_without_being_imported() -> None:
    pytest.importorskip("torch")
    assert blas(None).stdout == "libtorch_cpu False\n"


@linux_only
def test_the_blas_can_be_chosen() -> None:
    assert blas("reference").stdout == "reference (slow) False\n"
    wrong = blas("libnosuch.so.7")
    assert wrong.returncode == 1
    assert "LOOPKIT_MLX_BLAS=libnosuch.so.7 cannot be loaded" in wrong.stderr


@linux_only
def test_a_late_import_is_owned_up_to() -> None:
    assert "mlx was imported before loopkit_mlx" in blas(None, "import mlx.core").stdout


@linux_only
@pytest.mark.parametrize("order", ["import torch; import loopkit_mlx as b", "import loopkit_mlx as b; import torch"])
def test_both_libraries_live_in_one_process_in_either_order(order: str) -> None:
    pytest.importorskip("torch")
    code = f"{order}; fast = b.matmul_rate('cpu'); x = torch.eye(300); print(fast > 10, bool(((x @ x) == x).all()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"  # GFLOP/s; the wheel's own gives 2

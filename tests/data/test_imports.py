"""Importing the data package loads no array framework and no dataset library."""

import subprocess
import sys


def test_imports_stay_light():
    code = (
        "import sys, loopkit.data.loading; print([m for m in ('torch', 'mlx', 'transformers', 'datasets', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

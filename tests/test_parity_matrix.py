"""The parity matrix covers what its page says, and runs."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import combinations, product

import parity_matrix
from conftest import DEPTHS, ROOT


def test_any_two_settings_that_can_stand_together_do() -> None:
    levels = {"network": DEPTHS, **parity_matrix.LEVELS}
    rows = [[getattr(row, name) for name in levels] for row in parity_matrix.settings(DEPTHS)]
    # What docs/parity.md says: a map that is not pooled cannot be squeezed, and the densest large maps are left out.
    apart = {(3, 5): {(False, True)}, (1, 4): {((299, 299), 4), ((321, 321), 4)}}
    for (i, one), (j, other) in combinations(enumerate(levels.values()), 2):
        together = {(row[i], row[j]) for row in rows}
        assert together == set(product(one, other)) - apart.get((i, j), set())


def test_its_first_row_is_equal_for_every_port() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/parity_matrix.py", "--rows", "1"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *errors, verdict = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")][-7:]
    assert verdict == "equal"
    pytorch, pytorch_float32, keras, *keras_float32 = map(float, errors)
    assert max(pytorch, keras) <= 1e-12
    assert all(0 < ratio <= 1.5 for ratio in (pytorch_float32, *keras_float32))

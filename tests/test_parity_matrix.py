"""The parity matrix covers what its page says, and runs."""

from __future__ import annotations

import sys
from itertools import combinations, product
from typing import Any

import pytest
from conftest import DEPTHS

from scripts.studies import parity_matrix
from slimport import networks

# What docs/parity.md says: a map that is not pooled cannot be squeezed, and the densest large maps are left out.
APART = {
    ("global_pool", "spatial_squeeze"): {(False, True)},
    ("size", "output_stride"): {((299, 299), 4), ((321, 321), 4)},
}


@pytest.mark.parametrize(
    ("names", "apart"), [(DEPTHS, APART), (("inception_v3",), {})], ids=["resnet_v2", "inception_v3"]
)
def test_any_two_settings_that_can_stand_together_do(names: tuple[str, ...], apart: dict[Any, Any]) -> None:
    more = parity_matrix.FAMILY_LEVELS.get(networks.NETWORKS[names[0]].family, {})
    levels = {"network": names, **parity_matrix.LEVELS, **more}
    rows = parity_matrix.settings(names)
    for (one, ones), (other, others) in combinations(levels.items(), 2):
        together = {(getattr(row, one), getattr(row, other)) for row in rows}
        assert together == set(product(ones, others)) - apart.get((one, other), set())


def test_a_row_is_equal_for_every_port(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    # The other backends are started in processes of their own, which takes longest; test_keras.py has them.
    monkeypatch.setattr(parity_matrix, "OTHER_KERAS_BACKENDS", ())
    monkeypatch.setattr(sys, "argv", ["parity_matrix", "--networks", "resnet_v1_18", "--rows", "1"])
    with pytest.raises(SystemExit) as done:
        parity_matrix.main()
    assert not done.value.code
    *errors, verdict = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")][-5:]
    assert verdict == "equal"
    pytorch, pytorch_float32, keras, *keras_float32 = map(float, errors)
    assert max(pytorch, keras) <= 1e-12
    assert all(0 < ratio <= 4 for ratio in (pytorch_float32, *keras_float32))

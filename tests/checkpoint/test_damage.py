"""No damage is silent: a damaged file is refused in one line, or read as if it were whole.

`scripts/studies/damage.py` does this some ten thousand times; here are some hundred of its cases.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.checkpoint import open_checkpoint
from scripts.studies import damage


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, damage.Sample]:
    return {sample.name: sample for sample in damage.samples(tmp_path_factory.mktemp("samples"))}


FORMS = [
    "V1", "V2 index", "V2 data", "V1 shard, partitioned", "V2 index, partitioned", "V2 shard, partitioned",
    "V1, snappy", "SavedModel index", "tar", "tar.gz",
]  # fmt: skip
TABLES = [form for form in FORMS if form.startswith(("V1", "V2 index", "SavedModel"))]


def test_the_forms_are_all_there_is(samples: dict[str, damage.Sample]) -> None:
    assert list(samples) == FORMS
    for sample in samples.values():
        assert damage.outcome(sample.source, sample.arrays) == damage.HARMLESS


@pytest.mark.parametrize("form", FORMS)
def test_damage_is_refused_or_harmless(form: str, samples: dict[str, damage.Sample]) -> None:
    sample = samples[form]
    versions = damage.damaged(sample.file.read_bytes(), np.random.default_rng(1), 80)
    count = damage.run(sample, versions)
    assert set(count.outcomes) <= {damage.REFUSED, damage.HARMLESS}, count.outcomes


@pytest.mark.parametrize("form", TABLES)
def test_other_bytes_under_right_checksums_raise_nothing_else(form: str, samples: dict[str, damage.Sample]) -> None:
    sample = samples[form]
    versions = damage.forged(sample.file.read_bytes(), np.random.default_rng(2), 80)
    count = damage.run(sample, versions, values=False)
    assert set(count.outcomes) <= {damage.REFUSED, damage.HARMLESS}, count.outcomes
    assert count.slowest < 1


def test_every_byte_of_a_tensor_is_under_a_checksum(samples: dict[str, damage.Sample]) -> None:
    sample = samples["V2 data"]
    content = sample.file.read_bytes()
    versions = (content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :] for i in range(len(content)))
    count = damage.run(sample, versions)
    assert count.outcomes == {damage.REFUSED: len(content)}


def test_a_file_cut_shorter_while_it_is_open(tmp_path: Path) -> None:
    """Views would then end the process, so what can be noticed is."""
    from .conftest import save_v2

    prefix = save_v2(tmp_path / "m", {"w": np.zeros(1000, np.float32)})
    checkpoint = open_checkpoint(prefix)
    checkpoint.files[1].write_bytes(bytes(100))
    with pytest.raises(damage.CheckpointError, match="has become shorter since it was opened"):
        checkpoint["w"]

"""What must be equal is: a sample of the settings of `scripts.studies.equal_settings`."""

from __future__ import annotations

import pytest

from scripts.studies.equal_settings import FILES, MODELS, SMALL_NETWORKS, run, settings, targets


def test_there_are_more_than_316_settings_of_every_network_argument_and_target() -> None:
    every = {name: list(settings(network)) for name, network in SMALL_NETWORKS.items()}
    assert sum(len(targets(setting)) for each in every.values() for setting in each) >= 316
    found = {target for each in every.values() for setting in each for target in targets(setting)}
    assert found == {*MODELS, *FILES}
    for name, each in every.items():
        assert len(each) == len({str(setting) + str(setting.network) + repr(setting.network) for setting in each}), name


@pytest.mark.parametrize(("name", "number"), [("lenet", 1), ("vgg", 1), ("vgg", 2), ("cifarnet", 2)])
def test_a_setting_is_equal_in_both_dtypes(name: str, number: int) -> None:
    setting = list(settings(SMALL_NETWORKS[name]))[number]
    for target, report in run(setting):
        assert not isinstance(report, str), (target, report)
        assert report.ok, (target, report.first_difference)
        assert list(report.by_dtype) == ["float64", "float32"]

from __future__ import annotations

import math

import pytest
from omegaconf import OmegaConf

from meds_plugin.utils.values import is_list, is_number, is_whole


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [(3, True, True), (3.0, False, True), (math.nan, False, True), (True, False, False)],
)
def test_booleans_are_no_numbers(value: object, whole: bool, number: bool) -> None:
    assert is_whole(value) == whole
    assert is_number(value) == number
    assert not is_number(str(value))


def test_lists_may_come_from_a_configuration_but_not_from_text() -> None:
    for value in ([1], (1,), OmegaConf.create([1]), []):
        assert is_list(value)
    for other in ("12", 12, {1: 2}, None):
        assert not is_list(other)

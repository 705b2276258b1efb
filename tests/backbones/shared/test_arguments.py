"""Checks of detectors' arguments."""

from __future__ import annotations

import re
from typing import Any

import pytest

from backbones.shared.arguments import check_choice, check_counts, check_rates
from meds_plugin.utils.errors import UserError


def test_values_in_range_pass() -> None:
    check_counts(depth=1, codes=512)
    check_rates(decay=0, dropout=0.999)
    check_choice("map", "l2", ("cosine", "l2"))


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "2", None])
def test_what_is_no_count_is_named(value: Any) -> None:
    told = f"backbone.detector.codes must be a whole number of at least 1, got {value!r}"
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        check_counts(depth=2, codes=value)


@pytest.mark.parametrize("value", [1, -0.1, float("nan"), "0.5", None])
def test_what_is_no_rate_is_named(value: Any) -> None:
    told = f"backbone.detector.decay must be at least 0 and below 1, got {value!r}"
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        check_rates(dropout=0.1, decay=value)


def test_what_is_no_choice_is_named() -> None:
    told = "backbone.detector.init must be data, normal or reference, got None"
    with pytest.raises(UserError, match=f"^{re.escape(told)}$"):
        check_choice("init", None, ("data", "normal", "reference"))

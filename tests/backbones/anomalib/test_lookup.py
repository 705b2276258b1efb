"""Which of anomalib's models are wrapped, and why the others are not."""

from __future__ import annotations

from typing import Any

import pytest

from backbones.anomalib.lookup import recipe_of
from backbones.anomalib.recipes import RECIPES
from meds_plugin.utils.errors import UserError


def test_every_model_of_anomalib_is_wrapped_or_refused_with_a_reason(library: Any) -> None:
    for name in library.__all__:
        if name in {recipe.class_name for recipe in RECIPES.values()}:
            recipe_of(name)
            continue
        with pytest.raises(UserError, match=r"cannot be a detector: |is not wrapped: "):
            recipe_of(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("patchcore", "a memory .* rank images with backbones.anomalib.patchcore_scores"),
        ("Padim", "a memory or a statistic"),
        ("efficient_ad", "ImageNet's images"),
        ("UniNet", "is not wrapped: .* wrap it yourself"),
        ("stpfm", "is not a model of anomalib"),
    ],
)
def test_unsuitable_models_are_refused_with_those_that_work(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as refusal:
        recipe_of(name)
    assert f"model={name}" in str(refusal.value)
    assert ", ".join(RECIPES) in str(refusal.value)


@pytest.mark.parametrize("name", ["reverse_distillation", "ReverseDistillation", "inp-former"])
def test_names_may_be_spelled_as_anomalib_does(name: str) -> None:
    assert recipe_of(name) is RECIPES["inp_former" if "inp" in name else "reverse_distillation"]

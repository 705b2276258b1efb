"""Finds the recipe of one of anomalib's models by name, or says why there is none."""

from __future__ import annotations

from backbones.anomalib.recipes import RECIPES, Recipe
from meds_plugin.utils.errors import UserError

__all__ = ["recipe_of"]

_MEMORY = "it fits a memory or a statistic to fixed features: nothing trains, no gradient flows"
_NOT_WRAPPED = "there is no recipe for its map and loss"
_REASONS = {
    _MEMORY: (
        "anomaly_dino",
        "dfkde",
        "dfm",
        "mh_patchcore",
        "padim",
        "patchcore",
        "rad",
        "super_add",
    ),
    "it makes its own optimiser steps, so no single loss trains it": (
        "cflow",
        "dsr",
        "ganomaly",
        "glass",
    ),
    "it does not train": ("anomaly_vfm", "vlm_ad", "win_clip"),
    "it takes video": ("ai_vad", "fuvas"),
    "its training needs a set of textures (anomalib downloads DTD)": ("draem",),
    "it needs depth images as well": ("cfm",),
    "it starts from a memory of the clean training images": ("cfa",),
    "its training needs ImageNet's images and statistics of the training set": ("efficient_ad",),
    "its score comes from a separate head, not from a map": ("supersimplenet",),
    _NOT_WRAPPED: ("csflow", "found_ad", "fre", "general_ad", "l2bt", "patchflow", "uni_net"),
}


def recipe_of(name: str) -> Recipe:
    """Find the recipe of one of anomalib's models.

    Args:
        name: Its name in any of anomalib's spellings: ``reverse_distillation``,
            ``ReverseDistillation``.

    Raises:
        UserError: If it cannot be a detector, with the reason and what to do instead, or if it is
            none of anomalib's.
    """
    wanted = _squash(name)
    for known, recipe in RECIPES.items():
        if _squash(known) == wanted:
            return recipe
    reason = next((why for why, names in _REASONS.items() if wanted in map(_squash, names)), None)
    start = f"backbone.detector.model={name}"
    choices = ", ".join(RECIPES)
    if reason is None:
        msg = f"{start} is not a model of anomalib; detectors are {choices}"
    elif reason == _MEMORY:
        msg = (
            f"{start} cannot be a detector: {reason}; rank images with "
            f"backbones.anomalib.patchcore_scores, or use one of {choices}"
        )
    elif reason == _NOT_WRAPPED:
        msg = (
            f"{start} is not wrapped: {reason}; use one of {choices}, or wrap it yourself "
            "(README, 'Wrap your own detector')"
        )
    else:
        msg = f"{start} cannot be a detector: {reason}; use one of {choices}"
    raise UserError(msg)


def _squash(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()

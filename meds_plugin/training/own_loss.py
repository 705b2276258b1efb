"""The loss of fine-tuning: the detector's own, and one for images that are held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from meds_plugin.detectors.view import DetectorView

__all__ = ["own_loss"]


def own_loss(
    view: DetectorView,
    encoded: Tensor,
    batch: Mapping[str, Any],
    *,
    step: int,
    total_steps: int,
    top: float,
    hold: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Return the detector's loss of a batch; of its held images, the one that holds their scores.

    Args:
        view: The detector.
        encoded: ``[B, ...]`` from `DetectorView.encode`.
        batch: ``category`` and ``index``, ``[B]`` each, and ``held``: how many of the last images
            are held, none where it is missing.
        step: Optimiser steps made in the stage.
        total_steps: Length of the stage.
        top: Share of a map's largest values that make an image score.
        hold: Gives the loss of held images' scores, given their indices.

    Returns:
        A scalar, in which every image has the same weight.
    """
    size, category, held = len(encoded), batch["category"], int(batch.get("held", 0))
    own = size - held
    # Where all are held, the detector's loss counts nothing, but DDP meets every parameter.
    part = slice(own or size)
    loss = view.loss(encoded[part], step=step, total_steps=total_steps, category=category[part])
    if held == 0:
        return loss
    maps = view.anomaly_map(encoded[own:], category=category[own:])
    with torch.autocast(maps.device.type, enabled=False):  # as where images are selected
        held_loss = hold(view.image_score(maps.float(), top=top), batch["index"][own:])
    return (own * loss + held * held_loss) / size

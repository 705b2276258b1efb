"""Finds parameters that a training stage leaves without a gradient, for DDP."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.strategies import DDPStrategy

from meds_plugin.detectors.side_effects import untouched
from meds_plugin.encoding.reader import images_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from meds_plugin.detectors.view import DetectorView
    from meds_plugin.encoding.encoded_images import EncodedImages

__all__ = ["leaves_some_out", "prepare_ddp"]


def prepare_ddp(
    strategy: object, module: nn.Module, images: EncodedImages, *, stages: Sequence[str]
) -> None:
    """Tell DDP, before it is set up, whether to look for parameters without gradient.

    Looking takes time, but without it DDP fails if there are any.

    Args:
        strategy: The trainer's strategy; only DDP is changed.
        module: The module to train.
        images: The training images and the detector.
        stages: See `leaves_some_out`.
    """
    if not stages or not isinstance(strategy, DDPStrategy):
        return
    (batch,) = images.reader.batches([range(min(2, len(images)))])
    unused = leaves_some_out(
        images.view,
        module.parameters(),
        images_of(batch).to(next(module.parameters()).device),
        stages=stages,
        categories=len(set(images.reader.categories)),
    )
    if unused:
        strategy._ddp_kwargs.setdefault("find_unused_parameters", True)


def leaves_some_out(
    view: DetectorView,
    parameters: Iterable[nn.Parameter],
    images: Tensor,
    *,
    stages: Iterable[str],
    categories: int,
) -> bool:
    """Whether a stage's loss may reach only some of the parameters.

    The detector is left as it was.

    Args:
        view: The detector.
        parameters: The parameters that DDP synchronises; only trainable ones matter.
        images: ``[B, 3, H, W]`` to run it on, on the detector's device.
        stages: Names of the stages (see `stages.Stage`).
        categories: The number of categories. The first and the last are tried, because images of
            one category do not reach parameters that serve another.
    """
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    with untouched(view.detector, device=images.device), torch.enable_grad():
        encoded = view.encode(images)
        for stage, place in product(stages, sorted({0, categories - 1})):
            category = torch.full((len(images),), place, device=images.device)
            loss = _loss(view, stage, encoded.clone(), category)
            grads = torch.autograd.grad(loss, trainable, allow_unused=True)
            if any(grad is None for grad in grads):
                return True
    return False


def _loss(view: DetectorView, stage: str, encoded: Tensor, category: Tensor) -> Tensor:
    """Return a scalar that depends on the same parameters as the stage's loss."""
    if stage != "distill":
        return view.loss(encoded, step=0, total_steps=1000, category=category)
    maps = view.anomaly_map(encoded, category=category).sum()
    auxiliary = view.auxiliary_loss()
    return maps if auxiliary is None else maps + auxiliary

"""Which parameters a training stage leaves without a gradient: DDP has to be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from meds_plugin.untouched import untouched

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

    from meds_plugin.detector import DetectorView

__all__ = ["leaves_some_out"]


def leaves_some_out(
    view: DetectorView, parameters: Iterable[nn.Parameter], images: Tensor, *, stages: Iterable[str]
) -> bool:
    """Whether a stage's loss may reach only some of the parameters.

    The detector is left as it was.

    Args:
        view: The detector.
        parameters: What DDP synchronises: the trainable ones are looked at.
        images: ``[B, 3, H, W]`` to try it on, on the detector's device.
        stages: Names of the stages (see `stages.Stage`).
    """
    if view.sorts:
        return True  # it may use other parameters for other categories
    trainable = [parameter for parameter in parameters if parameter.requires_grad]
    with untouched(view.detector, device=images.device), torch.enable_grad():
        encoded = view.encode(images)
        for stage in stages:
            if stage == "distill":
                loss = view.anomaly_map(encoded.clone()).sum()
                auxiliary = view.auxiliary_loss()
                loss = loss if auxiliary is None else loss + auxiliary
            else:
                loss = view.loss(encoded.clone(), step=0, total_steps=1000)
            grads = torch.autograd.grad(loss, trainable, allow_unused=True)
            if any(grad is None for grad in grads):
                return True
    return False

"""The images on which a detector is checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from meds_plugin.utils.errors import DetectorError
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from meds_plugin.detectors.view import DetectorView

__all__ = ["USUAL_SIZES", "given_images", "random_images"]

USUAL_SIZES = (64, 128, 224, 256, 320, 384, 392, 448, 512, 518)


def given_images(view: DetectorView, example: Tensor | None, device: torch.device) -> Tensor | None:
    """Return two example images, ``None`` if neither they nor their size is given.

    Args:
        view: The detector, perhaps with an attribute ``image_size``.
        example: Images ``[B >= 2, 3, H, W]``; takes precedence over the attribute.
        device: Where the detector is.

    Raises:
        DetectorError: If either has the wrong type or shape.
    """
    if example is not None:
        if not isinstance(example, Tensor) or not example.is_floating_point():
            msg = "example must be a floating-point tensor of images [2, 3, H, W]"
            raise DetectorError(msg)
        if example.ndim != 4 or len(example) < 2:
            msg = f"example must be images [2, 3, H, W], got {tuple(example.shape)}"
            raise DetectorError(msg)
        return example[:2].detach().to(device)
    size = getattr(view.detector, "image_size", None)
    if size is None:
        return None
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, (list, tuple)) or [type(side) for side in sides] != [int, int]:
        name = type(view.detector).__name__
        msg = f"{name}.image_size must be a side or a pair (H, W) in pixels, got {size!r}"
        raise DetectorError(msg)
    return random_images(sides[0], sides[1], device)


def random_images(height: int, width: int, device: torch.device) -> Tensor:
    """Return ``[2, 3, height, width]``, the same each time.

    The second image has less contrast, so that a coupling between the images of a batch shows.
    """
    generator = torch_generator(0, "probe", "images")
    images = torch.randn(2, 3, height, width, generator=generator)
    images[1] *= 0.5
    return images.to(device)

"""How pixels become the values that a network was trained on."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

__all__ = ["IMAGENET", "INTERPOLATIONS", "Normalization", "normalization_of"]

INTERPOLATIONS = ("bicubic", "bilinear", "lanczos")


@dataclass(frozen=True)
class Normalization:
    """How images are resized and normalised.

    Attributes:
        mean: Mean of red, green and blue, for values in [0, 1].
        std: Their standard deviation, > 0.
        interpolation: Filter for resizing images, always antialiased: one of `INTERPOLATIONS`.

    Raises:
        UserError: If a value has the wrong type or is out of range.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        """Check the values, and convert lists to tuples."""
        for key in ("mean", "std"):
            object.__setattr__(self, key, _three(key, getattr(self, key)))
        if min(self.std) <= 0:
            msg = f"encoder.normalization: std must be above 0, got {list(self.std)}"
            raise UserError(msg)
        if self.interpolation not in INTERPOLATIONS:
            msg = (
                "encoder.normalization: interpolation must be one of "
                f"{', '.join(INTERPOLATIONS)}, got {self.interpolation!r}"
            )
            raise UserError(msg)

    def apply(self, images: Tensor) -> Tensor:
        """Normalise ``[..., 3, H, W]`` images with values in [0, 1]."""
        return (images - _column(self.mean, images)) / _column(self.std, images)

    def undo(self, images: Tensor) -> Tensor:
        """Return values in [0, 1] of normalised ``[..., 3, H, W]`` images."""
        return images * _column(self.std, images) + _column(self.mean, images)


def normalization_of(user: object) -> Normalization | None:
    """Return how images must be prepared for a detector or an encoder.

    Args:
        user: Any object. If neither it nor, for a module, any of its parts has an attribute
            ``normalization``, the result is ``None``.
    """
    for part in user.modules() if isinstance(user, nn.Module) else [user]:
        found = getattr(part, "normalization", None)
        if isinstance(found, Normalization):
            return found
    return None


def _three(key: str, values: Any) -> tuple[float, ...]:
    numbers = list(values) if is_list(values) else []
    if len(numbers) != 3 or not all(
        isinstance(v, int | float) and math.isfinite(v) for v in numbers
    ):
        msg = f"encoder.normalization: {key} must be three numbers, got {values!r}"
        raise UserError(msg)
    return tuple(float(value) for value in numbers)


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

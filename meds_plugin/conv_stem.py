"""The embedded encoder's patch embedding: a few convolutions instead of one linear map."""

from __future__ import annotations

from typing import Any

from timm.layers import PatchEmbed
from torch import nn

__all__ = ["ConvStem"]

_WIDTHS = (16, 32, 64)


class ConvStem(PatchEmbed):  # type: ignore[misc]
    """Embed patches of 8 pixels by three convolutions, each followed by a mean over 2 x 2.

    What a patch shows then hardly depends on how it lies on the grid, and a transformer learns
    much faster from few pictures than with one linear map of a patch's pixels.

    Args:
        arguments: As for timm's `PatchEmbed`; ``patch_size`` must be 8.

    Raises:
        ValueError: If the patch size is another one.
    """

    proj: Any

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        if tuple(self.patch_size) != (8, 8):
            msg = f"the stem makes patches of 8 pixels, not {tuple(self.patch_size)}"
            raise ValueError(msg)
        layers: list[nn.Module] = []
        width = 3
        for kernel, wider in zip((5, 3, 3), _WIDTHS, strict=True):
            layers += [nn.Conv2d(width, wider, kernel, padding=kernel // 2), nn.GELU()]
            layers += [nn.AvgPool2d(2)]
            width = wider
        self.proj = nn.Sequential(*layers, nn.Conv2d(width, self.proj.out_channels, 1))

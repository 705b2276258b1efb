"""A frozen network whose feature maps shrink with depth: CNNs and hierarchical transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meds_plugin.encoder_weights import brief
from meds_plugin.errors import UserError
from meds_plugin.frozen_encoder import FrozenEncoder, check_image_size, check_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PyramidEncoder", "has_stages"]


class PyramidEncoder(FrozenEncoder):
    """A timm network with stages of falling resolution; in evaluation mode, without gradients.

    All stages are brought to the grid of the deepest target stage, without smoothing before. The
    memory features are the same maps, all target stages' channels together.

    Args:
        model: A timm model with ``feature_info`` and ``forward_intermediates``.
        image_size: (H, W) of the input in pixels, multiples of the deepest target stage's stride.
        layers: Ascending 0-based indices of the target stages, as timm counts a model's features.

    Raises:
        UserError: If the image size is no multiple of the stride, a stage does not exist, or the
            network does not take images of this size.

    Source:
        METHOD section 4, "Alignment". The reference pads one used layer of its EfficientNet as for
        380 px; timm pads for the actual size. Batch norm keeps its trained statistics, which the
        reference lets drift.
    """

    def __init__(
        self, model: nn.Module, image_size: tuple[int, int], layers: Sequence[int]
    ) -> None:
        super().__init__(model, image_size, layers)
        stages = list(self.model.feature_info)
        check_layers(self.layers, len(stages), name="stages")
        stride = int(stages[self.layers[-1]]["reduction"])
        check_image_size(image_size, stride, name="stride")
        self.train(mode=False)
        try:
            shapes = [tap.shape for tap in self._taps(torch.zeros(1, 3, *image_size))]
        except Exception as error:
            name = type(model).__name__
            msg = (
                f"encoder.model ({name}) does not take images of {image_size[0]} x "
                f"{image_size[1]}: {brief(error)}; change data.image_size or encoder.model"
            )
            raise UserError(msg) from error
        self.grid = (int(shapes[-1][2]), int(shapes[-1][3]))
        self.channels = tuple(int(shape[1]) for shape in shapes)

    @torch.no_grad()
    def layer_maps(self, images: Tensor) -> list[Tensor]:
        """Return the target stages' outputs on the deepest one's grid (see `FrozenEncoder`)."""
        self._check_images(images)
        return [
            F.interpolate(tap, size=self.grid, mode="bilinear", align_corners=True)
            for tap in self._taps(images)
        ]

    def features(self, images: Tensor) -> Tensor:
        """Return ``[B, P, D]``: `layer_maps`, D = all their channels (see `FrozenEncoder`)."""
        return self.maps_and_features(images)[1]

    def maps_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return `layer_maps` and the features made of them (see `FrozenEncoder`)."""
        maps = self.layer_maps(images)
        return maps, torch.cat(maps, dim=1).flatten(2).mT

    @torch.no_grad()
    def _taps(self, images: Tensor) -> list[Tensor]:
        """Return the target stages' outputs at their own resolutions; later stages do not run."""
        return list(
            self.model.forward_intermediates(
                images,
                indices=list(self.layers),
                stop_early=True,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        )


def has_stages(model: nn.Module) -> bool:
    """Whether a timm model can hand out feature maps from inside."""
    return hasattr(model, "forward_intermediates") and bool(getattr(model, "feature_info", None))

"""A frozen vision transformer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from meds_plugin.encoders.base import FrozenEncoder, check_image_size, check_layers
from meds_plugin.encoders.normalization import IMAGENET, Normalization
from meds_plugin.encoders.weights import resize_pos_embed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ViTEncoder"]


class ViTEncoder(FrozenEncoder):
    """A timm vision transformer; in evaluation mode, without gradients.

    Args:
        model: A timm `VisionTransformer` or `Eva` (DINOv3), built for one input size; with or
            without class and register tokens, with absolute or rotary position embedding.
        layers: Ascending 0-based indices of the target blocks.
        normalization: How images were prepared when the model was trained.

    Attributes:
        dim: Width D of the tokens.
        patch_size: Side of a patch in pixels.
        groups: The earlier and the later half of the target blocks.
        heads: Attention heads of a block.

    Raises:
        UserError: If the image size is not a multiple of the patch size, or a layer does not exist.
    """

    additive = True

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[int],
        *,
        normalization: Normalization = IMAGENET,
    ) -> None:
        embed = cast("Any", model).patch_embed
        super().__init__(model, tuple(embed.img_size), layers, normalization=normalization)
        self.grid = tuple(embed.grid_size)
        self.patch_size = int(embed.patch_size[0])
        self.dim = int(self.model.embed_dim)
        self.heads = int(self.model.blocks[0].attn.num_heads)
        self.prefix_tokens = int(self.model.num_prefix_tokens)
        check_image_size(self.image_size, self.patch_size, name="patch size")
        check_layers(self.layers, len(self.model.blocks), name="blocks")
        count = len(self.layers)
        self.channels = (self.dim,) * count
        halves = (tuple(range(count // 2)), tuple(range(count // 2, count)))
        self.groups = tuple(half for half in halves if half)
        self.train(mode=False)

    @torch.no_grad()
    def tokens(self, images: Tensor) -> list[Tensor]:
        """Return the target blocks' outputs, without final norm (see `FrozenEncoder.tokens`)."""
        return self._with_prefix(self._intermediates(images, only=True))

    @torch.no_grad()
    def tokens_and_features(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the results of `tokens` and `features`, from one pass (see `FrozenEncoder`)."""
        tokens, taps = self._intermediates(images, only=False)
        return self._with_prefix(taps), self._memory_features(tokens)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return memory features: all blocks, the final norm, patch tokens only.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it was trained.

        Returns:
            ``[B, P, D]``, row by row, not scaled to unit length.

        Raises:
            ValueError: If the images have another size.

        Source:
            The reference's memory step.
        """
        self._check_images(images)
        return self._memory_features(self.model.forward_features(images))

    @torch.no_grad()
    def summary_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token after the final norm, and `features` (see `FrozenEncoder`)."""
        if getattr(self.model, "cls_token", None) is None:  # register tokens alone do not count
            return super().summary_and_features(images)
        self._check_images(images)
        normed: Tensor = self.model.fc_norm(self.model.forward_features(images))
        return normed[:, 0], normed[:, self.prefix_tokens :]

    def _intermediates(self, images: Tensor, *, only: bool) -> Any:
        """Return timm's outputs of the target blocks, after the final output unless ``only``."""
        self._check_images(images)
        return self.model.forward_intermediates(
            images,
            indices=list(self.layers),
            return_prefix_tokens=self.prefix_tokens > 0,
            norm=False,
            stop_early=only,
            output_fmt="NLC",
            intermediates_only=only,
        )

    def _with_prefix(self, taps: Sequence[Any]) -> list[Tensor]:
        """Prepend the prefix tokens, which timm returns separately, to the patches."""
        if not self.prefix_tokens:
            return list(taps)
        return [torch.cat([prefix, patches], dim=1) for patches, prefix in taps]

    def _memory_features(self, tokens: Tensor) -> Tensor:
        """Return the patches of the final norm's output."""
        # The final norm of models with average pooling; the identity in others.
        normed: Tensor = self.model.fc_norm(tokens)
        return normed[:, self.prefix_tokens :]

    def _fit(self, state: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Resize the position embedding, if there is one."""
        position, own = state.get("pos_embed"), expected.get("pos_embed")
        if position is not None and own is not None and position.ndim == own.ndim:
            prefix = own.shape[1] - math.prod(self.grid)
            state["pos_embed"] = resize_pos_embed(
                position.to(own.dtype), self.grid, prefix_tokens=prefix
            )
        return state

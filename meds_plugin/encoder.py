"""A frozen vision transformer: target tokens for reconstruction, patch features for the memory."""

from __future__ import annotations

import logging
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from meds_plugin.encoder_weights import (
    brief,
    check_state_dict,
    read_weights,
    resize_pos_embed,
    to_timm_names,
)
from meds_plugin.errors import UserError
from meds_plugin.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

__all__ = ["ViTEncoder", "build_encoder"]

log = logging.getLogger(__name__)

EMBEDDED_NAME = "embedded"
EMBEDDED_ARGS = {"patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 4}
EMBEDDED_WEIGHTS = Path(__file__).with_name("weights") / "embedded.safetensors"


class ViTEncoder(nn.Module):
    """A timm vision transformer that only ever runs: in evaluation mode, without gradients.

    Args:
        model: A timm `VisionTransformer` or `Eva` (DINOv3), made for one input size; with or
            without class and register tokens, with absolute or rotary position embedding.
        layers: Ascending 0-based indices of the target blocks.

    Attributes:
        image_size: (H, W) of the input in pixels.
        grid: (h, w), patches down and across; P = h * w.
        dim: Width D of the tokens.
        heads: Attention heads of a block.
        prefix_tokens: Class and register tokens; they stand before the patches.
        patch_size: Side of a patch in pixels.
        layers: The target blocks.

    Raises:
        UserError: If the image size is no multiple of the patch size or a layer does not exist.
    """

    def __init__(self, model: nn.Module, layers: Sequence[int]) -> None:
        super().__init__()
        self.model = cast("Any", model)
        embed = self.model.patch_embed
        self.image_size: tuple[int, int] = tuple(embed.img_size)
        self.grid: tuple[int, int] = tuple(embed.grid_size)
        self.patch_size = int(embed.patch_size[0])
        self.dim = int(self.model.embed_dim)
        self.heads = int(self.model.blocks[0].attn.num_heads)
        self.prefix_tokens = int(self.model.num_prefix_tokens)
        self.layers = tuple(int(layer) for layer in layers)
        _check_image_size(self.image_size, self.patch_size)
        _check_layers(self.layers, len(self.model.blocks))
        self.train(mode=False)

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay frozen and in evaluation mode, whatever is asked."""
        super().requires_grad_(requires_grad=False)
        return super().train(mode=False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:  # noqa: ARG002
        """Stay frozen, whatever is asked."""
        return super().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def block_tokens(self, images: Tensor) -> list[Tensor]:
        """Return the outputs of the target blocks; later blocks do not run.

        Args:
            images: ``[B, 3, H, W]`` of the encoder's input size, normalised as it was trained.

        Returns:
            For each of `layers`: ``[B, prefix + P, D]``, without final norm, prefix tokens first.

        Raises:
            ValueError: If the images have another size.
        """
        self._check_images(images)
        outputs = self.model.forward_intermediates(
            images,
            indices=list(self.layers),
            return_prefix_tokens=self.prefix_tokens > 0,
            norm=False,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )
        if not self.prefix_tokens:
            return list(outputs)
        return [torch.cat([prefix, patches], dim=1) for patches, prefix in outputs]

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
        tokens: Tensor = self.model.forward_features(images)
        # Models made for average pooling have their final norm here; in others it does nothing.
        normed: Tensor = self.model.fc_norm(tokens)
        return normed[:, self.prefix_tokens :]

    forward = features

    def load_weights(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Load weights in timm's or the official DINOv2 naming, made at any input size.

        Args:
            state: The weights by name.
            source: Where they come from, for messages.

        Raises:
            UserError: If they do not fit; nothing is changed then.
        """
        expected = self.model.state_dict()
        renamed = to_timm_names(state, expected)
        position, own = renamed.get("pos_embed"), expected.get("pos_embed")
        if position is not None and own is not None and position.ndim == own.ndim:
            prefix = own.shape[1] - math.prod(self.grid)
            renamed["pos_embed"] = resize_pos_embed(
                position.to(own.dtype), self.grid, prefix_tokens=prefix
            )
        check_state_dict(renamed, expected, source=source)
        self.model.load_state_dict(renamed)

    def _check_images(self, images: Tensor) -> None:
        if images.ndim != 4 or tuple(images.shape[2:]) != self.image_size:
            height, width = self.image_size
            msg = (
                f"the encoder takes images [B, 3, {height}, {width}], got {tuple(images.shape)}: "
                f"set data.image_size to the size of the images"
            )
            raise ValueError(msg)


def build_encoder(
    *,
    model: str,
    image_size: int | Sequence[int],
    layers: Sequence[int],
    weights: str | None = None,
    seed: int = 0,
    model_args: Mapping[str, Any] | None = None,
) -> ViTEncoder:
    """Make a frozen encoder.

    Args:
        model: A name of timm, e.g. ``vit_base_patch14_reg4_dinov2.lvd142m``, or ``embedded``: this
            package's own tiny one (patch 8, width 128, 6 blocks, a class token, see `ConvStem`).
        image_size: Side or (height, width) of the input in pixels, multiples of the patch size.
        layers: Ascending 0-based indices of the target blocks; the reference uses 2..9 of 12.
        weights: ``None``: pretrained, which timm downloads (the embedded encoder brings its own).
            A file (``.safetensors``, ``.pth``, ``.pt``) in timm's or the official DINOv2 naming.
            ``random``: drawn from the seed.
        seed: For random weights only.
        model_args: Further arguments for timm's model.

    Raises:
        UserError: For an unknown model, a wrong size or layer, weights that do not fit, cannot be
            read or cannot be downloaded.
    """
    extra = dict(model_args or {})
    with torch_seeded(seed, "encoder", "weights"):
        network = _create(model, _to_pair(image_size), extra)
    encoder = ViTEncoder(network, layers)
    if weights == "random":
        return encoder
    if weights is not None:
        encoder.load_weights(read_weights(Path(weights)), source=f"encoder.weights={weights}")
    elif model == EMBEDDED_NAME:
        encoder.load_weights(
            read_weights(EMBEDDED_WEIGHTS), source="the embedded encoder's weights"
        )
    else:
        encoder.load_weights(_download(model, extra), source=f"encoder.model={model}")
    return encoder


def _create(model: str, image_size: tuple[int, int] | None, extra: dict[str, Any]) -> nn.Module:
    """Make timm's model with fresh weights, for one fixed input size."""
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    arguments: dict[str, Any] = {"img_size": image_size, "num_classes": 0, **extra}
    if model == EMBEDDED_NAME:
        from meds_plugin.conv_stem import ConvStem

        own = {**EMBEDDED_ARGS, "no_embed_class": True, "embed_layer": ConvStem}
        arguments = {**own, **arguments}
        return cast("nn.Module", VisionTransformer(**arguments))
    fault = "no plain vision transformer"
    try:
        network = timm.create_model(model, dynamic_img_size=False, **arguments)
    except Exception as error:  # an unknown name; an argument that only transformers know; ...
        network, fault = None, brief(error)
    if isinstance(network, (VisionTransformer, Eva)):
        return cast("nn.Module", network)
    msg = f"encoder.model={model} {extra or ''}: {fault}; take a ViT, DINOv2 or DINOv3 of timm"
    raise UserError(msg)


def _download(model: str, extra: dict[str, Any]) -> dict[str, Tensor]:
    """Return timm's pretrained weights, at the size they were trained at."""
    import timm

    log.info("getting the pretrained weights of %s", model)
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # it would report each of its retries
    try:
        # timm resizes position embeddings in another way, so it must not see our image size.
        with torch_seeded(0, "encoder", "pretrained"):
            network = timm.create_model(model, pretrained=True, num_classes=0, **extra)
    except Exception as error:
        msg = (
            f"encoder.model={model}: no pretrained weights ({brief(error)}); "
            f"without a network give encoder.weights=FILE"
        )
        raise UserError(msg) from error
    finally:
        hub.setLevel(level)
    return dict(network.state_dict())


def _check_image_size(image_size: tuple[int, int], patch: int) -> None:
    below = {side: max(side // patch, 1) * patch for side in image_size if side % patch}
    if below:
        shown = image_size[0] if image_size[0] == image_size[1] else list(image_size)
        nearest = ", ".join(f"{side} -> {low} or {low + patch}" for side, low in below.items())
        msg = (
            f"data.image_size={shown} (data.crop where given) must be a multiple of the encoder's "
            f"patch size {patch}; nearest: {nearest}"
        )
        raise UserError(msg)


def _check_layers(layers: tuple[int, ...], depth: int) -> None:
    ascending = all(a < b for a, b in pairwise(layers))
    if not layers or not ascending or layers[0] < 0 or layers[-1] >= depth:
        msg = (
            f"encoder.layers={list(layers)} must be ascending indices from 0 to {depth - 1}: "
            f"the encoder has {depth} blocks"
        )
        raise UserError(msg)


def _to_pair(image_size: int | Sequence[int]) -> tuple[int, int]:
    sides = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
        msg = f"data.image_size={image_size} must be a side or [height, width] in pixels"
        raise UserError(msg)
    return sides[0], sides[1]

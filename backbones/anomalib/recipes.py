"""How each of anomalib's trainable models yields maps, a loss and memory features.

A `Recipe` runs anomalib's inner torch model and leaves out what it does for display: maps stay on
the grid of the finest features, without blur, and come out alike in training and evaluation mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """How one of anomalib's models becomes a detector.

    Below, ``model`` is its inner torch model, ``criterion`` the Lightning module's loss (or
    ``None``), and ``images`` are ``[B, 3, H, W]``, ImageNet-normalised.

    Attributes:
        class_name: Its class in ``anomalib.models``.
        frozen: Dotted names of parts that never train; those that a model lacks are skipped.
        maps: ``(model, images) -> [B, h, w]``, differentiable, higher = more anomalous.
        loss: ``(model, criterion, images, step) -> scalar``, the model's own training loss.
        features: ``(model, images) -> [B, P, D]`` or ``[B, D, h, w]`` of the frozen part.
        top: Share of a map's largest values in anomalib's image score; 0: the maximum.
        multiple: Divisor of height and width; ``None``: the encoder's patch size.
        square: Whether height and width must be equal.
        built_size: ``model -> (height, width)``, for models built for one image size.
    """

    class_name: str
    frozen: tuple[str, ...]
    maps: Callable[[Any, Tensor], Tensor]
    loss: Callable[[Any, Any, Tensor, int], Tensor]
    features: Callable[[Any, Tensor], Tensor]
    top: float = 0.0
    multiple: int | None = 1
    square: bool = False
    built_size: Callable[[Any], tuple[int, int]] | None = None

    def frozen_parts(self, model: nn.Module) -> list[nn.Module]:
        """Return the parts of this model that never train."""
        parts = dict(model.named_modules())
        return [parts[name] for name in self.frozen if name in parts]

    def check_size(self, model: Any, size: Sequence[int]) -> None:
        """Refuse an image size (height, width) that the model cannot take.

        Raises:
            UserError: Naming the size and those that fit.
        """
        multiple = self.multiple or int(model.encoder.patch_size)
        wanted = f"multiples of {multiple}" + (" and equal" if self.square else "")
        fits = not any(side % multiple for side in size)
        fits = fits and (size[0] == size[1] or not self.square)
        if fits and self.built_size:
            height, width = self.built_size(model)
            wanted, fits = f"{height} x {width}, as it was built", (height, width) == (*size,)
        if not fits:
            msg = (
                f"anomalib's {self.class_name} cannot take images of {size[0]} x {size[1]}: "
                f"data.image_size (after data.crop) must be {wanted}"
            )
            raise UserError(msg)


def _raw(model: Any, images: Tensor, **settings: int) -> Any:
    """Run a model's training forward, with dropout and norms in their present mode.

    It returns the loss (Dinomaly, INP-Former) or what the loss compares (the others).
    """
    before = model.training
    model.training = True  # of the model itself, not of its parts
    try:
        return model(images, **settings)
    finally:
        model.training = before


def _finest(maps: Sequence[Tensor]) -> tuple[int, int]:
    height, width = max((tuple(part.shape[-2:]) for part in maps), key=lambda grid: grid[0])
    return int(height), int(width)


def _pyramid(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate feature maps on the grid of the middle one, with equal weight in a cosine."""
    middle = sorted(maps, key=lambda part: part.shape[-1])[len(maps) // 2]
    grid = (middle.shape[-2], middle.shape[-1])
    resized = [
        F.normalize(
            F.adaptive_avg_pool2d(part, grid)
            if part.shape[-1] > grid[-1]
            else F.interpolate(part, size=grid, mode="bilinear", align_corners=False)
        )
        for part in maps
    ]
    return torch.cat(resized, dim=1)


def _pair_loss(model: Any, criterion: Any, images: Tensor, step: int) -> Tensor:
    del step
    loss: Tensor = criterion(*_raw(model, images))
    return loss


def _vit_features(model: Any, images: Tensor) -> Tensor:
    """Return the last block's patch tokens after the final norm, as MeDS's reference does."""
    network = model.encoder.feature_extractor
    tokens: Tensor = network.forward_features(images)
    return tokens[:, network.num_prefix_tokens :]


def _vit_maps(model: Any, encoder: Sequence[Tensor], decoder: Sequence[Tensor]) -> Tensor:
    """Return the mean over groups of 1 - cosine, in [0, 2]."""
    maps, _ = model.calculate_anomaly_maps(encoder, decoder, out_size=_finest(encoder))
    return maps[:, 0]  # type: ignore[no-any-return]


def _dinomaly_maps(model: Any, images: Tensor) -> Tensor:
    return _vit_maps(model, *model.get_encoder_decoder_outputs(images))


def _dinomaly_loss(model: Any, criterion: Any, images: Tensor, step: int) -> Tensor:
    del criterion  # the inner model brings its own
    loss: Tensor = _raw(model, images, global_step=step)
    return loss


def _inp_former_maps(model: Any, images: Tensor) -> Tensor:
    return _vit_maps(model, *model.get_encoder_decoder_inploss(images)[:2])


def _inp_former_loss(model: Any, criterion: Any, images: Tensor, step: int) -> Tensor:
    del criterion, step
    loss: Tensor = _raw(model, images)
    return loss


def _stfpm_maps(model: Any, images: Tensor) -> Tensor:
    """Return the product over layers of half the squared distance of unit features, >= 0."""
    teacher, student = _raw(model, images)
    maps: Tensor = model.anomaly_map_generator(
        teacher_features=teacher,
        student_features=student,
        image_size=_finest([*teacher.values()]),
    )
    return maps[:, 0]


def _distillation_maps(model: Any, images: Tensor) -> Tensor:
    """Return the sum (or product, where the model is built so) over layers of 1 - cosine, >= 0."""
    encoder, decoder = _raw(model, images)
    grid = _finest(encoder)
    maps = torch.cat(
        [
            F.interpolate(
                1 - F.cosine_similarity(a, b).unsqueeze(1),
                size=grid,
                mode="bilinear",
                align_corners=True,
            )
            for a, b in zip(encoder, decoder, strict=True)
        ],
        dim=1,
    )
    return maps.prod(dim=1) if model.anomaly_map_generator.mode == "multiply" else maps.sum(dim=1)


def _flow_size(model: Any) -> tuple[int, int]:
    """Return the image size that a flow, or the transformer before it, was built for."""
    extractor = getattr(model.feature_extractor, "extractor1", model.feature_extractor)
    is_transformer = hasattr(extractor, "patch_embed")
    height, width = extractor.patch_embed.img_size if is_transformer else model.input_size
    return int(height), int(width)


def _flow_maps(model: Any, images: Tensor) -> Tensor:
    latent = _raw(model, images)[0]
    # The model's own generator knows only the image's size.
    maps: Tensor = type(model.anomaly_map_generator)(_finest(latent))(latent)
    return maps[:, 0]


def _fastflow_maps(model: Any, images: Tensor) -> Tensor:
    """Return 1 - likelihood in [0, 1]; anomalib omits the 1, without which maps are negative."""
    return 1 + _flow_maps(model, images)


def _fastflow_features(model: Any, images: Tensor) -> Tensor:
    network = model.feature_extractor
    if not hasattr(network, "patch_embed"):
        return _pyramid(network(images))
    tokens: Tensor = network.forward_features(images)
    return tokens[:, tokens.shape[1] - network.patch_embed.num_patches :]


def _uflow_features(model: Any, images: Tensor) -> Tensor:
    extractor = model.feature_extractor
    if hasattr(extractor, "extractor1"):  # two CaiTs, frozen up to their norms
        return _pyramid(extractor(images))
    return _pyramid(extractor.extract_features(images))


RECIPES = {
    "dinomaly": Recipe(
        "Dinomaly",
        frozen=("encoder",),
        maps=_dinomaly_maps,
        loss=_dinomaly_loss,
        features=_vit_features,
        top=0.01,
        multiple=None,
    ),
    "fastflow": Recipe(
        "Fastflow",
        frozen=("feature_extractor",),
        maps=_fastflow_maps,
        loss=_pair_loss,
        features=_fastflow_features,
        multiple=16,
        built_size=_flow_size,
    ),
    "inp_former": Recipe(
        "InpFormer",
        frozen=("encoder",),
        maps=_inp_former_maps,
        loss=_inp_former_loss,
        features=_vit_features,
        top=0.01,
        multiple=None,
        square=True,
    ),
    "reverse_distillation": Recipe(
        "ReverseDistillation",
        frozen=("encoder",),
        maps=_distillation_maps,
        loss=_pair_loss,
        features=lambda model, images: _pyramid([*model.encoder(images).values()]),
        multiple=32,
    ),
    "stfpm": Recipe(
        "Stfpm",
        frozen=("teacher_model",),
        maps=_stfpm_maps,
        loss=_pair_loss,
        features=lambda model, images: _pyramid([*model.teacher_model(images).values()]),
    ),
    "uflow": Recipe(
        "Uflow",
        frozen=tuple(
            f"feature_extractor.{part}"
            for part in ("feature_extractor", "extractor1", "extractor2")
        ),
        maps=_flow_maps,
        loss=_pair_loss,
        features=_uflow_features,
        multiple=16,
        built_size=_flow_size,
    ),
}

"""Which of anomalib's models can be students, how their maps and losses come about, and why not.

Each `Recipe` runs anomalib's inner torch model and leaves out what it does for display: maps stay
on the grid of the finest features, without blur, and are the same in training and evaluation mode.
Nothing here imports anomalib, so that refusals need no installation.
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

__all__ = ["RECIPES", "Recipe", "recipe_of"]


@dataclass(frozen=True)
class Recipe:
    """How one of anomalib's models becomes a detector.

    ``model`` is its inner torch model, ``criterion`` the Lightning module's loss (or ``None``),
    images are ``[B, 3, H, W]``, ImageNet-normalised.

    Attributes:
        class_name: Its class in ``anomalib.models``.
        frozen: Parts that never train, as dotted names; those that a model lacks are skipped.
        maps: ``(model, images) -> [B, h, w]``, differentiable, higher = more anomalous.
        loss: ``(model, criterion, images, step) -> scalar``, the model's own training loss.
        features: ``(model, images) -> [B, P, D]`` or ``[B, D, h, w]`` of the frozen part.
        top: Share of a map's largest values in anomalib's image score; 0: the maximum.
        multiple: What height and width must be multiples of; ``None``: the encoder's patch.
        square: Whether height and width must be equal.
        built_size: ``model -> (height, width)`` where it is built for one image size.
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
        there = dict(model.named_modules())
        return [there[name] for name in self.frozen if name in there]

    def check_size(self, model: Any, size: Sequence[int]) -> None:
        """Refuse an image size (height, width) that the model cannot take.

        Raises:
            UserError: Naming the size and what would do.
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
    """Run a model's forward as far as training goes; dropout and norms keep their mode.

    That is the loss (Dinomaly, INP-Former) or what the loss compares (the others).
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
    """Join feature maps on the grid of the middle one; each counts the same in a cosine."""
    middle = sorted(maps, key=lambda part: part.shape[-1])[len(maps) // 2]
    grid = (middle.shape[-2], middle.shape[-1])
    joined = [
        F.normalize(
            F.adaptive_avg_pool2d(part, grid)
            if part.shape[-1] > grid[-1]
            else F.interpolate(part, size=grid, mode="bilinear", align_corners=False)
        )
        for part in maps
    ]
    return torch.cat(joined, dim=1)


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
    """Return the sum (or product, as the model was built) over layers of 1 - cosine, >= 0."""
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
    """Return the image size that a flow, or the transformer before it, is built for."""
    extractor = getattr(model.feature_extractor, "extractor1", model.feature_extractor)
    is_transformer = hasattr(extractor, "patch_embed")
    height, width = extractor.patch_embed.img_size if is_transformer else model.input_size
    return int(height), int(width)


def _flow_maps(model: Any, images: Tensor) -> Tensor:
    latent = _raw(model, images)[0]
    # The generator knows one size only, that of the image.
    maps: Tensor = type(model.anomaly_map_generator)(_finest(latent))(latent)
    return maps[:, 0]


def _fastflow_maps(model: Any, images: Tensor) -> Tensor:
    """Return 1 - likelihood in [0, 1]; anomalib leaves out the 1, which memory scores need."""
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

_MEMORY = "it fits a memory or a statistic to fixed features: nothing trains, no gradient flows"
_OWN_STEPS = "it makes its own optimiser steps, so no one loss trains it"
_NO_TRAINING = "it does not train"
_VIDEO = "it takes video"
_TEXTURES = "its training needs a set of textures (anomalib downloads DTD)"
_NOT_WRAPPED = "nobody has written down its map and loss here"
_REASONS = {
    _MEMORY: (
        "anomaly_dino",
        "dfkde",
        "dfm",
        "mh_patchcore",
        "padim",
        "patchcore",
        "rad",
        "super_add",
    ),
    _OWN_STEPS: ("cflow", "dsr", "ganomaly", "glass"),
    _NO_TRAINING: ("anomaly_vfm", "vlm_ad", "win_clip"),
    _VIDEO: ("ai_vad", "fuvas"),
    _TEXTURES: ("draem",),
    "it needs depth images beside the colour ones": ("cfm",),
    "it starts from a memory of the clean training images": ("cfa",),
    "its training needs ImageNet's images and statistics of the training set": ("efficient_ad",),
    "its score comes from a head of its own, which no map holds": ("supersimplenet",),
    _NOT_WRAPPED: ("csflow", "found_ad", "fre", "general_ad", "l2bt", "patchflow", "uni_net"),
}
_REFUSED = {name: reason for reason, names in _REASONS.items() for name in names}


def recipe_of(name: str) -> Recipe:
    """Find the recipe of one of anomalib's models.

    Args:
        name: Its name in any of anomalib's spellings: ``reverse_distillation``,
            ``ReverseDistillation``.

    Raises:
        UserError: If it cannot be a student, with the reason and what to do instead, or if it is
            none of anomalib's.
    """
    wanted = _squash(name)
    for known, recipe in RECIPES.items():
        if _squash(known) == wanted:
            return recipe
    reasons = [reason for known, reason in _REFUSED.items() if _squash(known) == wanted]
    start = f"backbone.detector.model={name}"
    choices = ", ".join(RECIPES)
    if not reasons:
        msg = f"{start} is none of anomalib's models; detectors here are {choices}"
    elif reasons[0] == _MEMORY:
        msg = (
            f"{start} cannot be a student: {reasons[0]}; rank images with "
            f"backbones.anomalib_scorer (PatchCore), or take one of {choices}"
        )
    elif reasons[0] == _NOT_WRAPPED:
        msg = (
            f"{start} is not wrapped: {reasons[0]}; take one of {choices}, or wrap it yourself "
            "(README, 'Wrap your own detector')"
        )
    else:
        msg = f"{start} cannot be a student: {reasons[0]}; take one of {choices}"
    raise UserError(msg)


def _squash(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()

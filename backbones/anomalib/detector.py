"""anomalib's trainable models as detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.anomalib.library import build_model
from backbones.anomalib.lookup import recipe_of
from meds_plugin.encoders.normalization import IMAGENET
from meds_plugin.metrics import image_score
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Self

__all__ = ["AnomalibDetector"]


class AnomalibDetector(nn.Module):
    """One of anomalib's models, with the interface of a detector.

    Images come ImageNet-normalised, as anomalib's inner models expect them; its pre- and
    post-processing are left out. The frozen part stays in evaluation mode.

    Args:
        model: A name (``stfpm``, ``fastflow``, ... see `RECIPES`), or a model made with anomalib,
            which is trained in place: export or test it with anomalib afterwards.
        image_size: Side, or (height, width), of the images, for a model given by name; default:
            anomalib's own.
        seed: For the initial weights of a model given by name.
        **arguments: For anomalib's class, for a model given by name.

    Raises:
        UserError: If anomalib is not installed, the model is unknown or cannot be a detector, or
            its arguments, normalisation or image size do not fit.
    """

    def __init__(
        self,
        model: str | nn.Module,
        *,
        image_size: int | Sequence[int] | None = None,
        seed: int = 0,
        **arguments: Any,
    ) -> None:
        super().__init__()
        self.image_size = None if image_size is None else _pair(image_size)
        self.recipe = recipe_of(model if isinstance(model, str) else _name_of(model))
        module: Any = model
        if isinstance(model, str):
            module = build_model(
                self.recipe.class_name, image_size=self.image_size, seed=seed, **arguments
            )
        elif self.image_size or arguments:
            msg = "image_size and further arguments are only for a model given by name"
            raise UserError(msg)
        _check_normalisation(module)
        _check_precision(module.model)
        self.model = module.model
        criterion = getattr(module, "loss", None)
        self.criterion = criterion if isinstance(criterion, nn.Module) else None
        self._frozen = self.recipe.frozen_parts(self.model)
        if self.image_size:
            self.recipe.check_size(self.model, self.image_size)
        for part in self._frozen:
            part.requires_grad_(requires_grad=False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of what trains; the frozen part stays in evaluation mode."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return anomaly maps, on the grid of the finest features and without blur.

        Args:
            images: ``[B, 3, H, W]``, ImageNet-normalised.

        Returns:
            ``[B, h, w]``, differentiable, >= 0, higher = more anomalous; the range depends on the
            model (see `backbones.anomalib.recipes`).

        Raises:
            UserError: If the model cannot take images of that size.
        """
        self.recipe.check_size(self.model, images.shape[-2:])
        return self.recipe.maps(self.model, images)

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        """Return the model's own training loss, a scalar.

        Args:
            encoded: ``[B, 3, H, W]``: the images, as nothing is encoded beforehand.
            step: Steps made in the stage; Dinomaly's hard mining rises with it.
            total_steps: Not used.
        """
        del total_steps
        return self.recipe.loss(self.model, self.criterion, encoded, step)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Return memory features of the frozen part.

        Returns:
            For a transformer ``[B, P, D]``: the last block's patch tokens after the final norm. For
            others ``[B, D, h, w]``: all layers, each scaled to unit length, concatenated on the
            grid of the middle one.
        """
        return self.recipe.features(self.model, images)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what trains as one group."""
        return [{"params": [p for p in self.model.parameters() if p.requires_grad]}]

    def image_score(self, maps: Tensor) -> Tensor:
        """Return ``[B]`` image scores of maps ``[B, h, w]`` by anomalib's rule for the model.

        That is the maximum, or for transformers the mean of the largest 1 %.
        """
        return image_score(maps, self.recipe.top)


def _name_of(model: object) -> str:
    """Return the name of the anomalib class that an object is of, or derives from."""
    for kind in type(model).__mro__:
        if kind.__module__.startswith("anomalib.models.") and kind.__name__ != "AnomalibModule":
            if hasattr(model, "model"):
                return kind.__name__
            break
    msg = (
        "AnomalibDetector takes a model of anomalib.models (its Lightning module) or a name; "
        f"got {type(model).__name__}"
    )
    raise UserError(msg)


def _check_normalisation(module: Any) -> None:
    """Refuse a model that expects images normalised in another way than ours."""
    transform = getattr(getattr(module, "pre_processor", None), "transform", None)
    for step in getattr(transform, "transforms", [transform]):
        if type(step).__name__ != "Normalize":
            continue
        given = torch.tensor([[*step.mean], [*step.std]])
        if not torch.allclose(given, torch.tensor([IMAGENET.mean, IMAGENET.std])):
            msg = (
                f"anomalib's {type(module).__name__} normalises images by {given.tolist()}, but "
                "the plugin's are normalised by ImageNet's mean and standard deviation: build it "
                "with those"
            )
            raise UserError(msg)


def _check_precision(model: nn.Module) -> None:
    if kinds := {p.dtype for p in model.parameters()} - {torch.float32}:
        msg = (
            f"the model's weights are {kinds.pop()}, but scores need float32: make it with float32 "
            "and give trainer.precision=bf16-mixed"
        )
        raise UserError(msg)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)

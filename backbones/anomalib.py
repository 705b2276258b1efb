"""anomalib's trainable models as detectors; needs the extra ``anomalib``.

They are not the reference for MeDS's numbers: for those take `backbones.dinomaly` and
`backbones.inp_former`. anomalib 2.7's Dinomaly has MLPs without biases, another epsilon in its
optimiser, 0.9 as the final share of easy points with at least one hard point, and fails on groups
of layers that it is given. Its Dinomaly returns the map before the blur and its INP-Former blurs
at full size without the resize to 256, so both score images differently from the authors' code.
Here all maps are taken before any blur, and the plugin's evaluation follows.

(Inside, ``import anomalib`` is the library: this module's own name is ``backbones.anomalib``.)
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from backbones.anomalib_models import recipe_of
from meds_plugin.encoders.weights import brief
from meds_plugin.metrics import image_score
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

__all__ = ["AnomalibDetector", "build_model"]

# Arguments with which anomalib's model is made but cannot run.
BROKEN = {"Dinomaly": {"fuse_layer_encoder", "fuse_layer_decoder"}}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class AnomalibDetector(nn.Module):
    """One of anomalib's models, behind the methods that the plugin asks of a detector.

    Images come ImageNet-normalised, as anomalib's inner models expect them; its pre- and
    post-processing are left out. The frozen part stays in evaluation mode.

    Args:
        model: A name (``stfpm``, ``fastflow``, ... see `anomalib_models.RECIPES`), or a model made
            with anomalib, which is trained in place: export or test it with anomalib afterwards.
        image_size: Side, or (height, width), of the images, for a model made by name; default:
            anomalib's own.
        seed: For the initial weights of a model made by name.
        **arguments: For anomalib's class, for a model made by name.

    Raises:
        UserError: If anomalib is not installed, the model is unknown or cannot be a student, or its
            arguments, normalisation or image size do not fit.
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
        if isinstance(model, str):
            self.recipe = recipe_of(model)
            module = build_model(
                self.recipe.class_name, image_size=image_size, seed=seed, **arguments
            )
        else:
            self.recipe = recipe_of(_name_of(model))
            module = model
            if image_size is not None or arguments:
                msg = "image_size and arguments are for a model given by name, not for a made one"
                raise UserError(msg)
        _check_normalisation(module)
        _check_precision(module.model)
        self.model = module.model
        criterion = getattr(module, "loss", None)
        self.criterion = criterion if isinstance(criterion, nn.Module) else None
        self._frozen = self.recipe.frozen_parts(self.model)
        if isinstance(model, str) and image_size is not None:
            self.recipe.check_size(self.model, _pair(image_size))
        for part in self._frozen:
            part.requires_grad_(requires_grad=False)
        self.image_size = None if image_size is None else _pair(image_size)
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
            ``[B, h, w]``, differentiable, >= 0, higher = more anomalous; the range is the model's
            (see `anomalib_models`).

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
            Transformers: ``[B, P, D]``, the last block's normed patch tokens. Others:
            ``[B, D, h, w]``, all layers joined on the grid of the middle one, each of unit length.
        """
        return self.recipe.features(self.model, images)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what trains as one group."""
        return [{"params": [p for p in self.model.parameters() if p.requires_grad]}]

    def image_score(self, maps: Tensor) -> Tensor:
        """Return ``[B]`` image scores of maps ``[B, h, w]`` by anomalib's rule for the model.

        That is the maximum, or for the transformers the mean of the largest 1 %.
        """
        return image_score(maps, self.recipe.top)


def build_model(
    class_name: str,
    *,
    image_size: int | Sequence[int] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> Any:
    """Make one of anomalib's models for ImageNet-normalised images, without its other parts.

    Args:
        class_name: Its class in ``anomalib.models``.
        image_size: Side, or (height, width); default: anomalib's own.
        seed: For its initial weights.
        **arguments: For the class.

    Raises:
        UserError: If anomalib is absent, it takes no such arguments, or weights cannot be
            downloaded.
    """
    maker = getattr(_library(), class_name)
    own = {"pre_processor", "post_processor", "evaluator", "visualizer"}
    known = set(inspect.signature(maker).parameters) - own - BROKEN.get(class_name, set())
    if unknown := sorted(set(arguments) - known):
        msg = (
            f"anomalib's {class_name} takes no backbone.detector.{unknown[0]}; it takes "
            f"{', '.join(sorted(known))}"
        )
        raise UserError(msg)
    parts: dict[str, Any] = dict.fromkeys(own - {"pre_processor"}, False)
    if image_size is not None:
        parts["pre_processor"] = _pre_processor(_pair(image_size))
    try:
        with torch_seeded(seed, "anomalib", "weights"), _quiet_logs():
            return maker(**parts, **arguments)
    except OSError as error:
        msg = (
            f"anomalib's {class_name}: no pretrained weights ({brief(error)}); without a network "
            "copy the folder that HF_HOME names from a machine that has them"
        )
        raise UserError(msg) from error
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        msg = f"anomalib's {class_name} cannot be made with these arguments: {brief(error)}"
        raise UserError(msg) from error


def _library() -> Any:
    """Import anomalib's models, without the warnings that are for its own authors.

    Raises:
        UserError: If it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module("anomalib.models")
    except ModuleNotFoundError as error:
        msg = (
            f"anomalib's models need the package {error.name}, which is not installed: "
            "pip install 'meds-plugin[anomalib]'"
        )
        raise UserError(msg) from error


@contextlib.contextmanager
def _quiet_logs() -> Iterator[None]:
    """Let only errors through: of what is built, and of each retry of a download."""
    loggers = [logging.getLogger(name) for name in ("anomalib", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _pre_processor(size: tuple[int, int]) -> Any:
    """Say to anomalib how the plugin's images come; models for one size read theirs from it."""
    transforms = import_module("torchvision.transforms.v2")
    mean, deviation = map(list, IMAGENET)
    resize = transforms.Resize(size, antialias=True)
    steps = transforms.Compose([resize, transforms.Normalize(mean=mean, std=deviation)])
    return import_module("anomalib.pre_processing").PreProcessor(transform=steps)


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
        if not torch.allclose(given, torch.tensor(IMAGENET)):
            msg = (
                f"anomalib's {type(module).__name__} normalises images by {given.tolist()}, but "
                "the plugin's come normalised by ImageNet's mean and deviation: make it with those"
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

"""Builds anomalib's models; nothing else here imports the library."""

from __future__ import annotations

import contextlib
import inspect
import logging
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from meds_plugin.encoders.normalization import IMAGENET
from meds_plugin.utils.errors import UserError, brief
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["build_model"]

# Arguments that anomalib accepts, but with which its model then fails.
BROKEN = {"Dinomaly": {"fuse_layer_encoder", "fuse_layer_decoder"}}


def build_model(
    class_name: str,
    *,
    image_size: tuple[int, int] | None = None,
    seed: int = 0,
    **arguments: Any,
) -> Any:
    """Build one of anomalib's models for ImageNet-normalised images, without its other parts.

    Args:
        class_name: Its class in ``anomalib.models``.
        image_size: (height, width); default: anomalib's own.
        seed: For its initial weights.
        **arguments: For the class.

    Raises:
        UserError: If anomalib is not installed, the class does not take the arguments, or weights
            cannot be downloaded.
    """
    model_class = getattr(_library(), class_name)
    own = {"pre_processor", "post_processor", "evaluator", "visualizer"}
    known = set(inspect.signature(model_class).parameters) - own - BROKEN.get(class_name, set())
    if unknown := sorted(set(arguments) - known):
        msg = (
            f"anomalib's {class_name} takes no backbone.detector.{unknown[0]}; it takes "
            f"{', '.join(sorted(known))}"
        )
        raise UserError(msg)
    parts: dict[str, Any] = dict.fromkeys(own - {"pre_processor"}, False)
    if image_size is not None:
        parts["pre_processor"] = _pre_processor(image_size)
    try:
        with torch_seeded(seed, "anomalib", "weights"), _quiet_logs():
            return model_class(**parts, **arguments)
    except OSError as error:
        msg = (
            f"anomalib's {class_name}: no pretrained weights ({brief(error)}); without a "
            "network, copy the folder HF_HOME from a machine that has them"
        )
        raise UserError(msg) from error
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        msg = f"anomalib's {class_name} cannot be built with these arguments: {brief(error)}"
        raise UserError(msg) from error


def _library() -> Any:
    """Import anomalib's models, without the warnings meant for its own authors.

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
    """Silence all but errors: reports of what is built and of each retried download."""
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
    """Tell anomalib how our images come; models built for one size read it from here."""
    transforms = import_module("torchvision.transforms.v2")
    resize = transforms.Resize(size, antialias=True)
    normalize = transforms.Normalize(mean=list(IMAGENET.mean), std=list(IMAGENET.std))
    steps = transforms.Compose([resize, normalize])
    return import_module("anomalib.pre_processing").PreProcessor(transform=steps)

"""What the plugin asks of an anomaly detector, and the defaults for what a detector lacks."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Detector", "DetectorView", "check_detector", "check_maps", "grid_of"]


@runtime_checkable
class Detector(Protocol):
    """An anomaly detector: any `torch.nn.Module` whose call turns images into an anomaly map.

    Only the call is required. A detector may also have these methods, and gets more from the
    plugin for each:

    * ``encode(images) -> Tensor [B, ...]``: the frozen part. It runs once per image, the plugin
      keeps the result and passes it to the two methods below in place of the images.
    * ``anomaly_map(encoded) -> Tensor [B, h, w]``: the trainable rest. Default: the call.
    * ``loss(encoded, *, step, total_steps) -> Tensor``: the detector's own training loss, a
      scalar; ``step`` counts from 0 within the stage. Default: the mean of the map.
    * ``features(images) -> Tensor [B, P, D]`` or ``[B, D, h, w]``: patch features for the memory
      ensemble, frozen. Default: those of the plugin's own encoder.
    * ``parameter_groups() -> list[dict]``: for the optimiser. Default: all trainable parameters.

    A submodule of one of these names (``self.features = nn.Sequential(...)``) is not taken for
    the method, nor is ``encode`` where there is no ``anomaly_map`` to take its result.
    """

    def __call__(self, images: Tensor) -> Tensor:
        """Map images to anomaly maps.

        Args:
            images: ``[B, 3, H, W]``, normalised as the detector expects them.

        Returns:
            ``[B, h, w]`` or ``[B, 1, h, w]``, differentiable, higher = more anomalous.
        """
        ...


class DetectorView:
    """One face for all detectors: calls what a detector offers and fills in what it lacks.

    Args:
        detector: The detector (see `Detector`).
        encoder: Gives memory features ``[B, P, D]`` of images where the detector has none; called
            only when needed.
    """

    def __init__(self, detector: nn.Module, encoder: Callable[[Tensor], Tensor]) -> None:
        self.detector = detector
        self._features = self._method("features") or encoder
        self._map = self._method("anomaly_map")
        self._encode = self._method("encode") if self._map else None
        self._loss = self._method("loss")
        self._groups = self._method("parameter_groups")

    @property
    def encodes(self) -> bool:
        """Whether the detector has a frozen part whose output can be kept."""
        return self._encode is not None

    def encode(self, images: Tensor) -> Tensor:
        """Run the frozen part once; the images themselves where there is none."""
        if self._encode is None:
            return images
        with torch.no_grad():
            return cast("Tensor", self._encode(images))

    def features(self, images: Tensor) -> Tensor:
        """Return memory features ``[B, P, D]`` or ``[B, D, h, w]`` without gradient."""
        with torch.no_grad():
            return cast("Tensor", self._features(images))

    def anomaly_map(self, encoded: Tensor) -> Tensor:
        """Return maps ``[B, h, w]``, differentiable, higher = more anomalous."""
        maps = cast("Tensor", (self._map or self.detector)(encoded))
        return maps.squeeze(1) if maps.ndim == 4 and maps.shape[1] == 1 else maps

    def loss(self, encoded: Tensor, *, step: int, total_steps: int) -> Tensor:
        """Return the detector's own training loss, a scalar."""
        if self._loss is None:
            return self.anomaly_map(encoded).mean()
        return cast("Tensor", self._loss(encoded, step=step, total_steps=total_steps))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups."""
        if self._groups is not None:
            return list(self._groups())
        return [{"params": [p for p in self.detector.parameters() if p.requires_grad]}]

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return every parameter that the optimiser gets, once."""
        seen: dict[int, nn.Parameter] = {}
        for group in self.parameter_groups():
            for parameter in group["params"]:
                seen.setdefault(id(parameter), parameter)
        return list(seen.values())

    def _method(self, name: str) -> Callable[..., Any] | None:
        found = getattr(self.detector, name, None)
        if isinstance(found, nn.Module) or not callable(found):
            return None
        return cast("Callable[..., Any]", found)


def check_detector(view: DetectorView) -> None:
    """Refuse what can never work, before any data are read.

    Raises:
        TypeError: If the detector's ``loss`` does not take the step.
        ValueError: If it has nothing to train.
    """
    detector = view.detector
    name = type(detector).__name__
    loss = getattr(detector, "loss", None)
    if callable(loss) and not isinstance(loss, nn.Module):
        try:
            inspect.signature(loss).bind(None, step=0, total_steps=1)
        except TypeError as error:
            msg = f"{name}.loss must take (encoded, *, step, total_steps): {error}"
            raise TypeError(msg) from None
    if not view.trainable_parameters():
        msg = f"{name} has no trainable parameter: none has requires_grad=True"
        raise ValueError(msg)


def check_maps(maps: Tensor, *, batch: int, name: str, finite: bool = True) -> None:
    """Refuse maps of a wrong shape or with values that are no numbers.

    Args:
        maps: What a detector returned.
        batch: Number of images it was given.
        name: Its name, for the message.
        finite: Look at the values too, which makes an accelerator wait.

    Raises:
        ValueError: Naming the detector and the fault.
    """
    if maps.ndim != 3 or maps.shape[0] != batch:
        msg = (
            f"{name} must return anomaly maps of shape [B, h, w] or [B, 1, h, w]; "
            f"for {batch} images it returned {tuple(maps.shape)}"
        )
        raise ValueError(msg)
    if finite and not bool(torch.isfinite(maps).all()):
        msg = f"{name} returned an anomaly map with values that are not finite"
        raise ValueError(msg)


def grid_of(features: Tensor, images: Tensor) -> tuple[int, int]:
    """Return the patch grid (h, w) of memory features.

    Args:
        features: ``[B, D, h, w]``, or ``[B, P, D]`` over a grid of the images' aspect ratio.
        images: ``[B, 3, H, W]`` they were made from.

    Raises:
        ValueError: If no grid of that aspect ratio has P patches.
    """
    if features.ndim == 4:
        return features.shape[-2], features.shape[-1]
    patches = features.shape[1]
    height = round(math.sqrt(patches * images.shape[-2] / images.shape[-1]))
    if height == 0 or patches % height or features.ndim != 3:
        msg = (
            "features must be [B, D, h, w], or [B, P, D] over a grid of the images' aspect ratio; "
            f"got {tuple(features.shape)} for images of {images.shape[-2]} x {images.shape[-1]}"
        )
        raise ValueError(msg)
    return height, patches // height

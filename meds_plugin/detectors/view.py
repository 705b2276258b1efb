"""One interface for all detectors: their own methods, and defaults for those they lack."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from meds_plugin.detectors.inference import evaluating
from meds_plugin.detectors.outputs import check_maps, kind_of
from meds_plugin.detectors.protocol import OPTIONAL_METHODS
from meds_plugin.encoders.normalization import IMAGENET, Normalization, normalization_of
from meds_plugin.metrics import image_score
from meds_plugin.utils.errors import DetectorError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DetectorView", "takes_category"]


class DetectorView:
    """One interface for all detectors: calls their own methods, and defaults for what they lack.

    Args:
        detector: The detector (see `Detector`).
        encoder: Returns memory features ``[B, P, D]`` of images if the detector does not; called
            only when needed. Images are normalised as it expects, if it says how (see
            `normalization_of`).

    Raises:
        DetectorError: If the detector is not a module.
    """

    def __init__(self, detector: nn.Module, encoder: Callable[[Tensor], Tensor]) -> None:
        _check_kind(detector)
        self.detector = detector
        self._encoder = encoder
        self._own = {name: found for name in OPTIONAL_METHODS if (found := _method(detector, name))}
        if "anomaly_map" not in self._own:
            self._own.pop("encode", None)
        if "encode" not in self._own or "features" not in self._own:
            self._own.pop("encode_and_features", None)
        self._takes_category = {
            name: takes_category(self._own.get(name, detector.forward))
            for name in ("anomaly_map", "loss")
        }

    @property
    def encodes(self) -> bool:
        """Whether the detector has a frozen part whose output can be cached."""
        return "encode" in self._own

    @property
    def augments(self) -> bool:
        """Whether the frozen part's output varies."""
        return getattr(self.detector, "augments", False) is True

    @property
    def normalization(self) -> Normalization:
        """How images must be prepared for the detector."""
        return normalization_of(self.detector) or IMAGENET

    def own(self, name: str) -> Callable[..., Any] | None:
        """Return the detector's own method of that name, ``None`` if the default is used."""
        return self._own.get(name)

    def name_of(self, method: str) -> str:
        """Return a method's name for messages, or the name of its substitute."""
        if method not in self._own:
            if method == "features":
                return "MeDSWrapper(features=...)"
            method = "forward" if method == "anomaly_map" else method
        return f"{type(self.detector).__name__}.{method}"

    def encode(self, images: Tensor) -> Tensor:
        """Run the frozen part, in evaluation mode; without one, return the images."""
        encode = self._own.get("encode")
        if encode is None:
            return images
        with torch.no_grad(), evaluating(self.detector):
            return _in_float32(self.as_tensor("encode", encode(images)))

    def features(self, images: Tensor) -> Tensor:
        """Return memory features ``[B, P, D]`` or ``[B, D, h, w]`` without gradient."""
        with torch.no_grad():
            run = self._own.get("features")
            if run is None:
                run, images = self._encoder, self._for_the_encoder(images)
            return _in_float32(self.as_tensor("features", run(images)))

    def encode_and_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the results of `encode` and `features`, from one pass if the detector can.

        Raises:
            DetectorError: If the detector's own method does not return two tensors.
        """
        both = self._own.get("encode_and_features")
        if both is None:
            return self.encode(images), self.features(images)
        with torch.no_grad(), evaluating(self.detector):
            pair = both(images)
        if not isinstance(pair, tuple) or [isinstance(x, Tensor) for x in pair] != [True, True]:
            msg = (
                f"{self.name_of('encode_and_features')} must return a tuple of two tensors, what "
                f"encode and features return; it returned {kind_of(pair)}"
            )
            raise DetectorError(msg)
        return _in_float32(pair[0]), _in_float32(pair[1])

    def anomaly_map(self, encoded: Tensor, *, category: Tensor | None = None) -> Tensor:
        """Return maps ``[B, h, w]``, differentiable, higher = more anomalous.

        Args:
            encoded: ``[B, ...]`` from `encode`.
            category: ``[B]`` int64 (see `Detector`); ``None``: unknown.

        Raises:
            DetectorError: If the detector returns another shape.
        """
        call = self._own.get("anomaly_map", self.detector)
        keyword = self._category_keyword(encoded, category)
        maps = self.as_tensor("anomaly_map", call(encoded, **keyword))
        maps = maps.squeeze(1) if maps.ndim == 4 and maps.shape[1] == 1 else maps
        name = self.name_of("anomaly_map")
        check_maps(maps, batch=encoded.shape[0], name=name)
        return maps

    def loss(
        self, encoded: Tensor, *, step: int, total_steps: int, category: Tensor | None = None
    ) -> Tensor:
        """Return the detector's own training loss, a scalar."""
        loss = self._own.get("loss")
        if loss is None:
            return self.anomaly_map(encoded, category=category).mean()
        keyword = self._category_keyword(encoded, category, "loss")
        return self.as_tensor("loss", loss(encoded, step=step, total_steps=total_steps, **keyword))

    def auxiliary_loss(self) -> Tensor | None:
        """Return what the last `anomaly_map` adds to the distillation loss, a scalar or None."""
        loss = self._own.get("auxiliary_loss")
        return None if loss is None else self.as_tensor("auxiliary_loss", loss())

    def image_score(self, maps: Tensor, *, top: float) -> Tensor:
        """Return ``[B]`` scores of images, higher = more anomalous.

        Args:
            maps: ``[B, h, w]`` from `anomaly_map`.
            top: Share of a map's largest values that are averaged if the detector has no
                ``image_score`` of its own.

        Raises:
            DetectorError: If the detector does not return ``[B]`` values.
        """
        score = self._own.get("image_score")
        if score is None:
            return image_score(maps, top)
        scores = self.as_tensor("image_score", score(maps))
        if scores.shape != maps.shape[:1]:
            msg = (
                f"{self.name_of('image_score')} must return one score per image, shape [B]; for "
                f"{len(maps)} maps it returned {tuple(scores.shape)}"
            )
            raise DetectorError(msg)
        return scores.float()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups, each with a list of parameters."""
        groups = self._own.get("parameter_groups")
        if groups is None:
            return [{"params": [p for p in self.detector.parameters() if p.requires_grad]}]
        found, given = [], groups()
        if not isinstance(given, Iterable):
            msg = f"{self.name_of('parameter_groups')} must return a list; it gave {kind_of(given)}"
            raise DetectorError(msg)
        for group in given:
            if not isinstance(group, dict) or "params" not in group:
                msg = (
                    f"{self.name_of('parameter_groups')} must return dicts as the optimiser takes "
                    f"them, [{{'params': [...]}}]; it returned a list of {type(group).__name__}"
                )
                raise DetectorError(msg)
            params = group["params"]
            found.append({**group, "params": [params] if isinstance(params, Tensor) else [*params]})
        return found

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that the optimiser gets, each once."""
        seen: dict[int, nn.Parameter] = {}
        for group in self.parameter_groups():
            for parameter in group["params"]:
                seen.setdefault(id(parameter), parameter)
        return list(seen.values())

    def _for_the_encoder(self, images: Tensor) -> Tensor:
        own, theirs = self.normalization, normalization_of(self._encoder)
        if theirs is None or (theirs.mean, theirs.std) == (own.mean, own.std):
            return images
        return theirs.apply(own.undo(images))

    def _category_keyword(
        self, encoded: Tensor, category: Tensor | None, method: str = "anomaly_map"
    ) -> dict[str, Tensor]:
        """Return the keyword ``category`` for a method that takes it."""
        if not self._takes_category[method]:
            return {}
        if category is None:
            category = torch.full((encoded.shape[0],), -1, device=encoded.device)
        return {"category": category}

    def as_tensor(self, method: str, value: object) -> Tensor:
        """Return a method's result.

        Raises:
            DetectorError: If it is not a tensor.
        """
        if not isinstance(value, Tensor):
            msg = f"{self.name_of(method)} must return one tensor; it returned {kind_of(value)}"
            raise DetectorError(msg)
        return value


def _in_float32(output: Tensor) -> Tensor:
    """Return a frozen output in float32 if autocast has halved it: the cache has its own type.

    Otherwise the type would depend on the detector's last layer.
    """
    halved = torch.is_autocast_enabled(output.device.type) and output.is_floating_point()
    return output.float() if halved else output


def _method(detector: nn.Module, name: str) -> Callable[..., Any] | None:
    found = getattr(detector, name, None)
    if isinstance(found, nn.Module) or not callable(found):
        return None
    return cast("Callable[..., Any]", found)


def takes_category(method: Callable[..., Any]) -> bool:
    """Whether a method has a keyword ``category``."""
    try:
        parameter = inspect.signature(method).parameters.get("category")
    except ValueError:  # compiled code has no signature
        return False
    return parameter is not None and parameter.kind != inspect.Parameter.POSITIONAL_ONLY


def _check_kind(detector: object) -> None:
    if isinstance(detector, type):
        msg = f"the detector is a class: pass an instance, {detector.__name__}()"
        raise DetectorError(msg)
    if not isinstance(detector, nn.Module):
        found = kind_of(detector)
        msg = f"a detector must be a torch.nn.Module with its layers inside, got {found}"
        raise DetectorError(msg)

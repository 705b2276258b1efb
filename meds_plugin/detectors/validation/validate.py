"""Tries a detector on two images before anything is trained, so that a fault gets a clear line."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from meds_plugin.detectors.example_images import USUAL_SIZES, given_images, random_images
from meds_plugin.detectors.frozen_part import freeze_modes
from meds_plugin.detectors.inference import evaluating
from meds_plugin.detectors.outputs import check_maps, grid_of
from meds_plugin.detectors.side_effects import untouched
from meds_plugin.detectors.validation.gradients import check_finite, check_gradient, reached
from meds_plugin.detectors.validation.signatures import check_signatures
from meds_plugin.utils.errors import DetectorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.detectors.view import DetectorView

__all__ = ["validate_detector"]

_TOLERANCE = 5e-3  # of the largest value; accelerators round products to 10 bits or so


class _Tried(NamedTuple):
    """What a detector made of the images.

    Attributes:
        images: ``[2, 3, H, W]``.
        encoded: Of these images, without gradient.
        training: ``[2, h, w]`` map in training mode, with gradient.
        auxiliary: What it adds to the distillation loss.
        evaluation: ``[2, h, w]`` map in evaluation mode.
        features: For the memory; ``None`` where the default encoder is to give them.
        features_by: Names of the parameters to train that they came from.
    """

    images: Tensor
    encoded: Tensor
    training: Tensor
    auxiliary: Tensor | None
    evaluation: Tensor
    features: Tensor | None
    features_by: list[str]


def validate_detector(
    view: DetectorView,
    *,
    frozen: Sequence[str],
    example: Tensor | None = None,
    memory_encoder: nn.Module | None = None,
) -> None:
    """Check a detector by its signatures, then by running all it offers on two images.

    The detector is left as it was (see `untouched`). The default memory encoder is not asked.

    Args:
        view: The detector.
        frozen: Prefixes of its submodules that never train (see `modes.frozen_prefixes`).
        example: Images ``[B >= 2, 3, H, W]`` as the detector expects them; default: random ones of
            its ``image_size``, or of the first of the usual sizes that it takes.
        memory_encoder: The user's own encoder for the memory, where the detector has no features.

    Raises:
        DetectorError: Naming the method, the fault and what to change.
    """
    check_signatures(view)
    detector = view.detector
    tensors = list(chain(detector.parameters(), detector.buffers()))
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        name = type(detector).__name__
        msg = f"{name} has lazy layers without weights yet: run it on a batch before wrapping it"
        raise DetectorError(msg)
    device = tensors[0].device
    given = given_images(view, example, device)
    others = [] if memory_encoder is None else [memory_encoder]
    weights = [next(other.parameters(), tensors[0]) for other in others]
    memory = weights[0].device if weights else None
    with (
        untouched(detector, *others, device=device),
        torch.inference_mode(mode=False),
        torch.enable_grad(),
    ):
        for other in others:
            other.eval()
        if given is None:
            _search(view, frozen, device, memory)
        else:
            _check(view, frozen, given, memory)


def _search(
    view: DetectorView, frozen: Sequence[str], device: torch.device, memory: torch.device | None
) -> None:
    """Check on images of the usual sizes until the detector takes some."""
    first: DetectorError | None = None
    for size in USUAL_SIZES:
        error = _attempt(view, frozen, random_images(size, size, device), memory)
        if error is None:
            return
        first = first or error
    msg = (
        f"{first}; so with every usual size up to {USUAL_SIZES[-1]}: if it needs another, say so "
        "with an attribute image_size of the detector, or MeDSWrapper(..., example=images)"
    )
    raise DetectorError(msg) from first


def _attempt(
    view: DetectorView, frozen: Sequence[str], images: Tensor, memory: torch.device | None
) -> DetectorError | None:
    """Check the detector; return what it raised itself, because the size may be to blame."""
    try:
        _check(view, frozen, images, memory)
    except DetectorError as error:
        if error.__cause__ is None:  # our own finding
            raise
        return error
    return None


def _check(
    view: DetectorView, frozen: Sequence[str], images: Tensor, memory: torch.device | None
) -> None:
    tried = _try(view, frozen, images, memory)
    _check_map(view, tried)
    _check_alone(view, tried)
    _check_loss(view, frozen, tried)
    _check_image_score(view, tried.evaluation)
    if tried.features is not None:
        _check_features(view, tried, tried.features)
        _check_both(view, tried.images, tried.encoded, tried.features)


def _try(
    view: DetectorView, frozen: Sequence[str], images: Tensor, memory: torch.device | None
) -> _Tried:
    """Run the detector in both modes, as training and scoring do.

    Args:
        view: The detector.
        frozen: See `validate_detector`.
        images: ``[2, 3, H, W]``.
        memory: Where the user's memory encoder is, if there is one.
    """
    category = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    size = f"two images of {images.shape[-2]} x {images.shape[-1]}"
    encoded = images
    if view.encodes:
        encoded, used = _frozen(view, "encode", images)
        _check_encoded(view.name_of("encode"), encoded, used)
    # Copies, because nothing forbids a detector to work in place.
    copy = encoded.clone()
    _train(view, frozen)
    training = _call(view, "anomaly_map", size, view.anomaly_map, copy, category=category)
    auxiliary = _call(view, "auxiliary_loss", size, view.auxiliary_loss)
    copy = encoded.clone()
    view.detector.eval()
    with torch.no_grad():
        evaluation = _call(view, "anomaly_map", size, view.anomaly_map, copy, category=category)
    features, features_by = None, list[str]()
    if view.own("features"):
        features, features_by = _frozen(view, "features", images)
    elif memory is not None:
        features = _call(view, "features", size, view.features, images.to(memory))
    return _Tried(images, encoded, training, auxiliary, evaluation, features, features_by)


def _frozen(view: DetectorView, method: str, images: Tensor) -> tuple[Tensor, list[str]]:
    """Run a frozen part with gradients for once, and tell which trainable parameters it uses."""
    size = f"two images of {images.shape[-2]} x {images.shape[-1]}"
    with evaluating(view.detector):
        value = view.as_tensor(method, _call(view, method, size, view.own(method), images.clone()))
    return value.detach(), reached(value, view)


def _train(view: DetectorView, frozen: Sequence[str]) -> None:
    view.detector.train()
    freeze_modes(view.detector, frozen)


def _call(view: DetectorView, method: str, size: str, call: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a method; what it raises becomes a line that names it."""
    try:
        return call(*args, **kwargs)
    except DetectorError:
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        msg = f"{view.name_of(method)} failed on {size}: {what}"
        if method == "anomaly_map" and view.own(method) and not view.encodes:
            msg += " (it was given the images, because there is no encode)"
        raise DetectorError(msg) from error


def _check_encoded(name: str, encoded: Tensor, used: list[str]) -> None:
    if encoded.shape[:1] != (2,):
        msg = (
            f"{name} must return one tensor with the images along its first axis; for 2 images it "
            f"returned {tuple(encoded.shape)}"
        )
        raise DetectorError(msg)
    check_finite(name, encoded)
    if used:
        msg = (
            f"{name} uses {used[0]}, which is to train, but encode runs once an image "
            "and without gradient: move that layer to anomaly_map, or freeze it "
            "(requires_grad_(False))"
        )
        raise DetectorError(msg)


def _check_map(view: DetectorView, tried: _Tried) -> None:
    name = view.name_of("anomaly_map")
    for maps in (tried.training, tried.evaluation):
        if not maps.is_floating_point():
            msg = (
                f"{name} returned a map of {maps.dtype}: return floating-point values, without "
                "argmax, rounding or comparisons on their way"
            )
            raise DetectorError(msg)
        check_maps(maps, batch=2, name=name)
    if tried.training.shape != tried.evaluation.shape:
        one, other = tried.training.shape, tried.evaluation.shape
        msg = (
            f"{name} returned maps of {one[1]} x {one[2]} in training mode but {other[1]} x "
            f"{other[2]} in evaluation mode: return the same size in both"
        )
        raise DetectorError(msg)
    check_gradient(view, name, "map", tried.training)
    if tried.auxiliary is not None:
        _check_scalar(view.name_of("auxiliary_loss"), tried.auxiliary)


def _check_alone(view: DetectorView, tried: _Tried) -> None:
    """Check that the map of an image is its own, whatever else is in the batch."""
    name, batch = view.name_of("anomaly_map"), "a batch of one image"
    category = torch.zeros(2, dtype=torch.int64, device=tried.images.device)
    view.detector.eval()
    with torch.no_grad():
        again = view.anomaly_map(tried.encoded.clone(), category=category)
        if not _close(again, tried.evaluation):
            msg = (
                f"{name} gives another map each time in evaluation mode: draw random numbers in "
                "training mode only (if self.training, nn.Dropout)"
            )
            raise DetectorError(msg)
        for place in range(2):
            encoded = _call(view, "encode", batch, view.encode, tried.images[place : place + 1])
            if encoded.shape != tried.encoded[:1].shape:
                msg = (
                    f"{view.name_of('encode')} returned {tuple(encoded.shape)} for a batch of one "
                    "image: keep the batch, squeeze(1) instead of squeeze()"
                )
                raise DetectorError(msg)
            one = category[:1]
            alone = _call(view, "anomaly_map", batch, view.anomaly_map, encoded, category=one)
            check_maps(alone, batch=1, name=name)
            if alone.shape[1:] != again.shape[1:] or not _close(alone[0], again[place]):
                msg = (
                    f"the map of an image by {name} depends on the other images in its batch: in "
                    "evaluation mode normalise each image by itself, over dim=(1, 2) of the map"
                )
                raise DetectorError(msg)


def _check_loss(view: DetectorView, frozen: Sequence[str], tried: _Tried) -> None:
    if view.own("loss") is None:
        return
    _train(view, frozen)
    category = torch.zeros(2, dtype=torch.int64, device=tried.images.device)
    loss = _call(
        view,
        "loss",
        "two images",
        view.loss,
        tried.encoded.clone(),
        step=0,
        total_steps=1000,
        category=category,
    )
    name = view.name_of("loss")
    _check_scalar(name, loss)
    check_gradient(view, name, "loss", loss)


def _check_image_score(view: DetectorView, maps: Tensor) -> None:
    if view.own("image_score") is None:
        return
    view.detector.eval()
    with torch.no_grad():
        what = f"maps {tuple(maps.shape)}"
        score = _call(view, "image_score", what, view.image_score, maps, top=0.0)
    check_finite(view.name_of("image_score"), score)


def _check_features(view: DetectorView, tried: _Tried, features: Tensor) -> None:
    name = view.name_of("features")
    if features.ndim not in (3, 4) or len(features) != 2 or not features.is_floating_point():
        msg = (
            f"{name} must return floating-point patch features [B, P, D] or [B, D, h, w]; for 2 "
            f"images it returned {tuple(features.shape)} of {features.dtype}"
        )
        raise DetectorError(msg)
    try:
        grid_of(features, tried.images)
    except ValueError as error:
        msg = f"{name}: {error}; leave out class and register tokens"
        raise DetectorError(msg) from None
    check_finite(name, features)
    if tried.features_by:
        msg = (
            f"{name} uses {tried.features_by[0]}, which is to train: memory features must be "
            "frozen; freeze that layer, or leave features out and the plugin's own encoder is taken"
        )
        raise DetectorError(msg)


def _check_both(view: DetectorView, images: Tensor, encoded: Tensor, features: Tensor) -> None:
    """Check that one pass gives what two give."""
    if view.own("encode_and_features") is None:
        return
    name = view.name_of("encode_and_features")
    copy = images.clone()
    both = _call(view, "encode_and_features", "two images", view.encode_and_features, copy)
    for method, one, other in zip(("encode", "features"), both, (encoded, features), strict=True):
        if one.shape != other.shape or one.dtype != other.dtype or not _close(one, other):
            msg = (
                f"{name} returned {tuple(one.shape)} where {method} returned "
                f"{tuple(other.shape)}, or other values: it must return exactly the same"
            )
            raise DetectorError(msg)


def _check_scalar(name: str, loss: Tensor) -> None:
    if loss.ndim != 0 or not loss.is_floating_point():
        msg = (
            f"{name} must return a scalar; it returned {tuple(loss.shape)} of {loss.dtype}: take "
            "its mean()"
        )
        raise DetectorError(msg)
    check_finite(name, loss)


def _close(one: Tensor, other: Tensor) -> bool:
    largest = float(other.abs().max())
    return bool(torch.allclose(one, other, rtol=0.0, atol=_TOLERANCE * largest))

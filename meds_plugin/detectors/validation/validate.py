"""Runs a detector on two images before any training, so that faults get a clear message."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from meds_plugin.detectors.example_images import USUAL_SIZES, given_images, random_images
from meds_plugin.detectors.frozen_part import freeze_modes
from meds_plugin.detectors.inference import evaluating
from meds_plugin.detectors.outputs import check_finite, grid_of
from meds_plugin.detectors.side_effects import untouched
from meds_plugin.detectors.validation.gradients import check_gradient, reached
from meds_plugin.detectors.validation.signatures import check_signatures
from meds_plugin.utils.errors import DetectorError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.detectors.view import DetectorView

__all__ = ["validate_detector"]

_TOLERANCE = 5e-3  # of the largest value; accelerators may round products to 10 bits


class _Trial(NamedTuple):
    """A detector's outputs for two images.

    Attributes:
        images: ``[2, 3, H, W]``.
        category: ``[2]``, the first category.
        encoded: The encoded images, without gradient.
        training: ``[2, h, w]`` maps in training mode, with gradient.
        auxiliary: The auxiliary loss, if there is one.
        evaluation: ``[2, h, w]`` maps in evaluation mode.
        features: Memory features; ``None`` where the default encoder provides them.
        features_by: Names of the trainable parameters that they depend on.
    """

    images: Tensor
    category: Tensor
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
    """Check a detector's signatures, then run all its methods on two images.

    The detector is left as it was (see `untouched`). The default memory encoder is not run.

    Args:
        view: The detector.
        frozen: Prefixes of its submodules that never train (see `frozen_prefixes`).
        example: Images ``[B >= 2, 3, H, W]`` as the detector expects them; default: random ones of
            its ``image_size``, or of the first usual size that it accepts.
        memory_encoder: The user's own encoder for the memory, if there is one.

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
    modules = [detector] if memory_encoder is None else [detector, memory_encoder]
    with untouched(*modules, device=device), torch.inference_mode(mode=False), torch.enable_grad():
        if memory_encoder is not None:
            memory_encoder.eval()
        if given is None:
            _search(view, frozen, device, memory_encoder)
        else:
            _check(view, frozen, given, memory_encoder)


def _search(
    view: DetectorView,
    frozen: Sequence[str],
    device: torch.device,
    memory_encoder: nn.Module | None,
) -> None:
    """Check on images of the usual sizes until the detector accepts some."""
    first: DetectorError | None = None
    for size in USUAL_SIZES:
        try:
            _check(view, frozen, random_images(size, size, device), memory_encoder)
        except DetectorError as error:  # noqa: PERF203 - a few sizes
            if error.__cause__ is None:  # our own finding, not what the detector raised
                raise
            first = first or error
        else:
            return
    msg = (
        f"{first}; so with every usual size up to {USUAL_SIZES[-1]}: if it needs another, say so "
        "with an attribute image_size of the detector, or MeDSWrapper(..., example=images)"
    )
    raise DetectorError(msg) from first


def _check(
    view: DetectorView, frozen: Sequence[str], images: Tensor, memory_encoder: nn.Module | None
) -> None:
    trial = _run(view, frozen, images, memory_encoder)
    _check_map(view, trial)
    _check_alone(view, trial)
    _check_loss(view, frozen, trial)
    _check_image_score(view, trial.evaluation)
    if trial.features is not None:
        _check_features(view, trial, trial.features)
        _check_both(view, trial, trial.features)


def _run(
    view: DetectorView, frozen: Sequence[str], images: Tensor, memory_encoder: nn.Module | None
) -> _Trial:
    """Run the detector on ``[2, 3, H, W]`` images in both modes, as training and scoring do."""
    category = torch.zeros(2, dtype=torch.int64, device=images.device)
    size = _size_of(images)
    encoded = images
    if view.encodes:
        encoded, used = _frozen(view, "encode", images)
        _check_encoded(view.name_of("encode"), encoded, used)
    # Inputs are cloned, because a detector may work in place.
    _train(view, frozen)
    training = _call(view, "anomaly_map", size, encoded.clone(), category=category)
    auxiliary = _call(view, "auxiliary_loss", size)
    view.detector.eval()
    with torch.no_grad():
        evaluation = _call(view, "anomaly_map", size, encoded.clone(), category=category)
    features, features_by = None, list[str]()
    if view.own("features"):
        features, features_by = _frozen(view, "features", images)
    elif memory_encoder is not None:
        device = next(memory_encoder.parameters(), images).device
        features = _call(view, "features", size, images.to(device))
    return _Trial(images, category, encoded, training, auxiliary, evaluation, features, features_by)


def _frozen(view: DetectorView, method: str, images: Tensor) -> tuple[Tensor, list[str]]:
    """Run a frozen method with gradients, and name the trainable parameters that it uses."""
    with evaluating(view.detector):
        output = _call(view, method, _size_of(images), images.clone(), call=view.own(method))
    value = view.as_tensor(method, output)
    return value.detach(), reached(value, view)


def _size_of(images: Tensor) -> str:
    return f"two images of {images.shape[-2]} x {images.shape[-1]}"


def _train(view: DetectorView, frozen: Sequence[str]) -> None:
    view.detector.train()
    freeze_modes(view.detector, frozen)


def _call(
    view: DetectorView, method: str, what: str, *args: Any, call: Any = None, **kwargs: Any
) -> Any:
    """Call a method of the view, or ``call``; an error becomes a line that names the method."""
    try:
        return (call or getattr(view, method))(*args, **kwargs)
    except DetectorError:
        raise
    except Exception as error:
        fault = " ".join(f"{type(error).__name__}: {error}".split())
        msg = f"{view.name_of(method)} failed on {what}: {fault}"
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
    check_finite(encoded, name=name)
    if used:
        msg = (
            f"{name} uses {used[0]}, which trains, but encode runs once per image and without "
            "gradient: move that layer to anomaly_map, or freeze it (requires_grad_(False))"
        )
        raise DetectorError(msg)


def _check_map(view: DetectorView, trial: _Trial) -> None:
    name = view.name_of("anomaly_map")
    for maps in (trial.training, trial.evaluation):
        if not maps.is_floating_point():
            msg = (
                f"{name} returned a map of {maps.dtype}: return floating-point values, without "
                "argmax, rounding or comparisons on their way"
            )
            raise DetectorError(msg)
        check_finite(maps, name=name)
    one, other = trial.training.shape, trial.evaluation.shape
    if one != other:
        msg = (
            f"{name} returned maps of {one[1]} x {one[2]} in training mode but {other[1]} x "
            f"{other[2]} in evaluation mode: return the same size in both"
        )
        raise DetectorError(msg)
    check_gradient(view, name, "map", trial.training)
    if trial.auxiliary is not None:
        _check_scalar(view.name_of("auxiliary_loss"), trial.auxiliary)


def _check_alone(view: DetectorView, trial: _Trial) -> None:
    """Check that an image's map does not depend on the rest of the batch."""
    name, batch = view.name_of("anomaly_map"), "a batch of one image"
    view.detector.eval()
    with torch.no_grad():
        again = view.anomaly_map(trial.encoded.clone(), category=trial.category)
        if not _close(again, trial.evaluation):
            msg = (
                f"{name} gives another map each time in evaluation mode: sample random numbers in "
                "training mode only (if self.training, nn.Dropout)"
            )
            raise DetectorError(msg)
        for place in range(2):
            encoded = _call(view, "encode", batch, trial.images[place : place + 1])
            if encoded.shape != trial.encoded[:1].shape:
                msg = (
                    f"{view.name_of('encode')} returned {tuple(encoded.shape)} for a batch of one "
                    "image: keep the batch, squeeze(1) instead of squeeze()"
                )
                raise DetectorError(msg)
            alone = _call(view, "anomaly_map", batch, encoded, category=trial.category[:1])
            if alone.shape[1:] != again.shape[1:] or not _close(alone[0], again[place]):
                msg = (
                    f"the map of an image by {name} depends on the other images in its batch: in "
                    "evaluation mode normalise each image by itself, over dim=(1, 2) of the map"
                )
                raise DetectorError(msg)


def _check_loss(view: DetectorView, frozen: Sequence[str], trial: _Trial) -> None:
    if view.own("loss") is None:
        return
    _train(view, frozen)
    settings = {"step": 0, "total_steps": 1000, "category": trial.category}
    loss = _call(view, "loss", "two images", trial.encoded.clone(), **settings)
    name = view.name_of("loss")
    _check_scalar(name, loss)
    check_gradient(view, name, "loss", loss)


def _check_image_score(view: DetectorView, maps: Tensor) -> None:
    if view.own("image_score") is None:
        return
    view.detector.eval()
    with torch.no_grad():
        score = _call(view, "image_score", f"maps {tuple(maps.shape)}", maps, top=0.0)
    check_finite(score, name=view.name_of("image_score"))


def _check_features(view: DetectorView, trial: _Trial, features: Tensor) -> None:
    name = view.name_of("features")
    if features.ndim not in (3, 4) or len(features) != 2 or not features.is_floating_point():
        msg = (
            f"{name} must return floating-point patch features [B, P, D] or [B, D, h, w]; for 2 "
            f"images it returned {tuple(features.shape)} of {features.dtype}"
        )
        raise DetectorError(msg)
    try:
        grid_of(features, trial.images)
    except ValueError as error:
        msg = f"{name}: {error}; leave out class and register tokens"
        raise DetectorError(msg) from None
    check_finite(features, name=name)
    if trial.features_by:
        msg = (
            f"{name} uses {trial.features_by[0]}, which trains: memory features must be frozen; "
            "freeze that layer, or leave features out to use the plugin's own encoder"
        )
        raise DetectorError(msg)


def _check_both(view: DetectorView, trial: _Trial, features: Tensor) -> None:
    """Check that ``encode_and_features`` returns what the two methods return."""
    if view.own("encode_and_features") is None:
        return
    name = view.name_of("encode_and_features")
    both = _call(view, "encode_and_features", "two images", trial.images.clone())
    expected = trial.encoded, features
    for method, one, other in zip(("encode", "features"), both, expected, strict=True):
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
    check_finite(loss, name=name)


def _close(one: Tensor, other: Tensor) -> bool:
    largest = float(other.abs().max())
    return bool(torch.allclose(one, other, rtol=0.0, atol=_TOLERANCE * largest))

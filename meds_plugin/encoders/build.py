"""Builds frozen encoders by timm's name, with their weights."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from meds_plugin.encoders.normalization import INTERPOLATIONS, Normalization
from meds_plugin.encoders.packaged_weights import packaged_weights
from meds_plugin.encoders.pyramid import PyramidEncoder, PyramidSettings
from meds_plugin.encoders.vit import ViTEncoder
from meds_plugin.encoders.weights import read_weights
from meds_plugin.utils.errors import UserError, brief
from meds_plugin.utils.rng import torch_seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

    from meds_plugin.encoders.base import FrozenEncoder

__all__ = ["build_encoder"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")


def build_encoder(
    *,
    model: str,
    image_size: int | Sequence[int],
    layers: Sequence[int],
    weights: str | None = None,
    seed: int = 0,
    model_args: Mapping[str, Any] | None = None,
    pyramid: Mapping[str, Any] | None = None,
    normalization: Mapping[str, Any] | None = None,
) -> FrozenEncoder:
    """Build a frozen encoder: a `ViTEncoder` for a plain transformer, else a `PyramidEncoder`.

    Args:
        model: timm's name, e.g. ``vit_base_patch14_reg4_dinov2.lvd142m`` or
            ``tf_efficientnet_lite0``.
        image_size: Side or (height, width) of the input in pixels, multiples of the patch size or
            the deepest target stage's stride.
        layers: Ascending 0-based indices of the target blocks, or of the target stages; the
            reference uses blocks 2..9 of 12.
        weights: ``None``: pretrained, from an installed package if there is one for the model (see
            `packaged_weights`), else downloaded by timm. A file (``.safetensors``, ``.pth``,
            ``.pt``) in the naming of timm, the official DINOv2 or the EfficientNet of the HVQ
            reference. ``random``: sampled by the seed.
        seed: For random weights only.
        model_args: Further arguments for timm's model.
        pyramid: How stages become tokens, see `PyramidSettings`; not for plain transformers.
        normalization: ``mean``, ``std`` and ``interpolation`` of the images, where they should
            differ from timm's for the model.

    Raises:
        UserError: For an unknown model or one without intermediate features, a wrong size, layer or
            setting, or weights that do not fit, cannot be read or cannot be downloaded.
    """
    extra = dict(model_args or {})
    size = _to_pair(image_size)
    settings = _settings(PyramidSettings, "encoder.pyramid", pyramid)
    with torch_seeded(seed, "encoder", "weights"):
        network = _create(model, size, extra)
    own = _own_normalization(network)
    normal = _settings(Normalization, "encoder.normalization", own | dict(normalization or {}))
    encoder = _frozen(network, size, layers, normal, settings, name=model)
    if weights == "random":
        return encoder
    path = packaged_weights(model) if weights is None else Path(weights)
    if path is None:
        encoder.load_weights(_download(model, extra), source=f"encoder.model={model}")
    else:
        encoder.load_weights(read_weights(path), source=f"encoder.weights={path}")
    return encoder


def _frozen(
    network: nn.Module,
    image_size: tuple[int, int],
    layers: Sequence[int],
    normalization: Normalization,
    settings: PyramidSettings,
    *,
    name: str,
) -> FrozenEncoder:
    """Wrap a network by its kind."""
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    if isinstance(network, (VisionTransformer, Eva)):
        return ViTEncoder(network, layers, normalization=normalization)
    if hasattr(network, "forward_intermediates") and getattr(network, "feature_info", None):
        return PyramidEncoder(
            network, image_size, layers, settings=settings, normalization=normalization
        )
    msg = (
        f"encoder.model={name}: timm's {type(network).__name__} returns no intermediate features; "
        "give a ViT, DINOv2, DINOv3, EfficientNet, ResNet or ConvNeXt"
    )
    raise UserError(msg)


def _own_normalization(network: nn.Module) -> dict[str, Any]:
    """Return how timm prepares a model's images, with timm's defaults for what it does not say."""
    from timm.data import resolve_data_config

    # timm refuses empty arguments, so one repeats its default.
    known = resolve_data_config({"in_chans": 3}, getattr(network, "pretrained_cfg", None))
    values = {key: known[key] for key in ("mean", "std", "interpolation")}
    if values["interpolation"] not in INTERPOLATIONS:
        values["interpolation"] = "bicubic"
    return values


def _settings(kind: Callable[..., _T], key: str, given: Mapping[str, Any] | None) -> _T:
    """Construct settings from a configuration; unknown keys are a user error."""
    known = inspect.signature(kind).parameters
    unknown = [name for name in given or {} if name not in known]
    if unknown:
        msg = f"{key} has no {', '.join(unknown)}: give some of {', '.join(known)}"
        raise UserError(msg)
    return kind(**(given or {}))


def _create(model: str, image_size: tuple[int, int], extra: dict[str, Any]) -> nn.Module:
    """Create timm's model with random weights, for one fixed input size if it needs one."""
    import timm

    # Plain transformers know both of these arguments, hierarchical ones the first, CNNs neither.
    fixed: dict[str, Any] = {"img_size": image_size}
    fault = ""
    for own in ({**fixed, "dynamic_img_size": False}, fixed, {}):
        try:
            return cast("nn.Module", timm.create_model(model, num_classes=0, **own, **extra))
        except Exception as error:  # noqa: PERF203 - three attempts
            fault = brief(error)
            if not isinstance(error, TypeError):  # else an argument that the model does not know
                break
    msg = (
        f"encoder.model={model} {extra or ''}: timm cannot build it ({fault}); "
        "give a name that timm knows"
    )
    raise UserError(msg)


def _download(model: str, extra: dict[str, Any]) -> dict[str, Tensor]:
    """Return timm's pretrained weights for the size that they were trained at."""
    import timm

    log.info("downloading the pretrained weights of %s", model)
    hub = logging.getLogger("huggingface_hub")
    level = hub.level
    hub.setLevel(logging.ERROR)  # hides a warning for every retry
    try:
        # timm resizes position embeddings differently, so it must not see our image size.
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


def _to_pair(image_size: int | Sequence[int]) -> tuple[int, int]:
    sides = [image_size] * 2 if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or any(not isinstance(side, int) or side < 1 for side in sides):
        msg = f"data.image_size={image_size} must be a side or [height, width] in pixels"
        raise UserError(msg)
    return sides[0], sides[1]

"""The evaluation protocol: at which size maps and masks are compared, and by which rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from meds_plugin.utils.errors import UserError

__all__ = ["EvaluationProtocol", "evaluation_maps", "evaluation_masks"]

_MASK_LEVEL = {"nonzero": 0.0, "half": 0.5}  # values above it are defect


@dataclass(frozen=True)
class EvaluationProtocol:
    """Everything that metrics depend on besides maps, masks and labels.

    Attributes:
        resize: Side R of the square that maps and masks are compared at, in pixels.
        blur_kernel: Side of the Gaussian kernel in pixels, odd; 1 = no blur.
        blur_sigma: Its standard deviation in pixels.
        blur_padding: ``zeros`` (darkens the border) or ``reflect``.
        mask_rule: What counts as defect in a resampled mask with grey edges: ``nonzero`` = every
            value above 0, ``half`` = every value above 0.5.
        image_top: Share of the largest pixels whose mean is the image score, in [0, 1].
        fpr_limit: False-positive rate that AUPRO integrates up to, in (0, 1].

    Raises:
        UserError: If a value is out of range; the message names ``evaluation.KEY``.

    Source:
        Defaults and ``nonzero`` as in the reference's Dinomaly; its INP-Former uses ``half``.
    """

    resize: int = 256
    blur_kernel: int = 5
    blur_sigma: float = 4.0
    blur_padding: str = "zeros"
    mask_rule: str = "nonzero"
    image_top: float = 0.01
    fpr_limit: float = 0.3

    def __post_init__(self) -> None:
        """Check every value."""
        _require("resize", self.resize, _is_whole(self.resize), "a whole number of pixels >= 1")
        odd = _is_whole(self.blur_kernel) and self.blur_kernel % 2 == 1
        _require("blur_kernel", self.blur_kernel, odd, "an odd whole number (1 = no blur)")
        positive = _is_number(self.blur_sigma) and self.blur_sigma > 0
        _require("blur_sigma", self.blur_sigma, positive, "a number of pixels > 0")
        known = self.blur_padding in ("zeros", "reflect")
        _require("blur_padding", self.blur_padding, known, "zeros or reflect")
        known = self.mask_rule in tuple(_MASK_LEVEL)
        _require("mask_rule", self.mask_rule, known, "nonzero or half")
        share = _is_number(self.image_top) and 0 <= self.image_top <= 1
        _require("image_top", self.image_top, share, "a share in [0, 1] (0 = the maximum)")
        rate = _is_number(self.fpr_limit) and 0 < self.fpr_limit <= 1
        _require("fpr_limit", self.fpr_limit, rate, "a rate in (0, 1]")
        fits = self.blur_padding == "zeros" or self.blur_kernel // 2 < self.resize
        _require("blur_kernel", self.blur_kernel, fits, "less than twice the map's side to reflect")


def evaluation_maps(
    maps: Tensor, input_size: tuple[int, int], protocol: EvaluationProtocol
) -> Tensor:
    """Bring anomaly maps to the resolution that is evaluated, and smooth them.

    Args:
        maps: ``[N, h, w]`` maps as the detector gives them, higher = more anomalous.
        input_size: Height and width of the images the detector saw, in pixels.
        protocol: Resolution and blur.

    Returns:
        ``[N, R, R]`` float maps: bilinear to the input size (corners aligned), bilinear to R x R
        (corners not aligned), then blurred.

    Raises:
        ValueError: If the shape is wrong.

    Source:
        METHOD section 2, "Maps and scores".
    """
    _check_stack(maps, name="maps")
    side = (protocol.resize, protocol.resize)
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    large = F.interpolate(maps[:, None], size=input_size, mode="bilinear", align_corners=True)
    square = F.interpolate(large, size=side, mode="bilinear", align_corners=False)
    return _blur(square, protocol)[:, 0]


def evaluation_masks(masks: Tensor, protocol: EvaluationProtocol) -> Tensor:
    """Bring masks to the resolution that is evaluated, and make them binary.

    Args:
        masks: ``[N, H, W]`` in [0, 1] at the detector's input size, 1 = defect; resampling may have
            left grey edges.
        protocol: Resolution and mask rule.

    Returns:
        ``[N, R, R]`` bool: nearest neighbour, then the rule.

    Raises:
        ValueError: If shape or values are wrong.

    Source:
        METHOD section 2, "Mask".
    """
    _check_stack(masks, name="masks")
    if len(masks) and not 0.0 <= float(masks.min()) <= float(masks.max()) <= 1.0:
        msg = f"masks must be in [0, 1], got {float(masks.min())} to {float(masks.max())}"
        raise ValueError(msg)
    side = (protocol.resize, protocol.resize)
    small = F.interpolate(masks[:, None].float(), size=side, mode="nearest")[:, 0]
    return small > _MASK_LEVEL[protocol.mask_rule]


def _blur(maps: Tensor, protocol: EvaluationProtocol) -> Tensor:
    """Smooth ``[N, 1, R, R]`` maps, same size.

    As sums of shifted maps, since a convolution would lose digits to autocast and TF32.
    """
    reach, side = protocol.blur_kernel // 2, maps.shape[-1]
    steps = [i / protocol.blur_sigma for i in range(-reach, reach + 1)]
    weights = [math.exp(-0.5 * step * step) for step in steps]
    weights = [weight / math.fsum(weights) for weight in weights]
    mode = "constant" if protocol.blur_padding == "zeros" else "reflect"
    maps = F.pad(maps, (reach,) * 4, mode=mode)
    for axis in (-2, -1):
        shifted = [w * maps.narrow(axis, i, side) for i, w in enumerate(weights)]
        maps = torch.stack(shifted).sum(dim=0)
    return maps


def _check_stack(values: Tensor, *, name: str) -> None:
    """Raise ValueError unless the shape is [N, H, W] with pixels."""
    if values.ndim != 3 or 0 in values.shape[1:]:
        msg = f"{name} must be [N, H, W] with pixels, got shape {tuple(values.shape)}"
        raise ValueError(msg)


def _require(key: str, value: object, ok: bool, expected: str) -> None:
    """Raise UserError unless `ok`."""
    if not ok:
        msg = f"evaluation.{key} must be {expected}, got {value!r}"
        raise UserError(msg)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1

"""The evaluation protocol: the size at which maps and masks are compared, and the rules."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from meds_plugin.utils.errors import require
from meds_plugin.utils.values import is_number, is_whole

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = [
    "EvaluationProtocol",
    "evaluation_maps",
    "evaluation_masks",
    "packed_masks",
    "unpacked_masks",
]

_MASK_LEVEL = {"nonzero": 0.0, "half": 0.5}  # larger values count as defect


@dataclass(frozen=True)
class EvaluationProtocol:
    """Everything that metrics depend on besides maps, masks and labels.

    Attributes:
        resize: Side R, in pixels, of the square to which maps and masks are resized.
        blur_kernel: Side of the Gaussian kernel in pixels, odd; 1 = no blur.
        blur_sigma: Its standard deviation in pixels.
        blur_padding: ``zeros`` (darkens the border) or ``reflect``.
        mask_rule: What counts as defect in a resampled mask with grey edges: ``nonzero`` = every
            value above 0, ``half`` = every value above 0.5.
        image_top: The image score is the mean of this share of the largest pixels, in [0, 1].
        fpr_limit: False-positive rate up to which AUPRO integrates, in (0, 1].
        aupimo: Compute AUPIMO, too.

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
    aupimo: bool = False

    def __post_init__(self) -> None:
        """Check every value."""
        whole = is_whole(self.resize) and self.resize >= 1
        self._require("resize", whole, "a whole number of pixels >= 1")
        odd = is_whole(self.blur_kernel) and self.blur_kernel >= 1 and self.blur_kernel % 2 == 1
        self._require("blur_kernel", odd, "an odd whole number (1 = no blur)")
        positive = is_number(self.blur_sigma) and 0 < self.blur_sigma < math.inf
        self._require("blur_sigma", positive, "a number of pixels > 0")
        self._require("blur_padding", self.blur_padding in ("zeros", "reflect"), "zeros or reflect")
        self._require("mask_rule", self.mask_rule in tuple(_MASK_LEVEL), "nonzero or half")
        share = is_number(self.image_top) and 0 <= self.image_top <= 1
        self._require("image_top", share, "a share in [0, 1] (0 = the maximum)")
        rate = is_number(self.fpr_limit) and 0 < self.fpr_limit <= 1
        self._require("fpr_limit", rate, "a rate in (0, 1]")
        self._require("aupimo", isinstance(self.aupimo, bool), "true or false")
        fits = self.blur_padding == "zeros" or self.blur_kernel // 2 < self.resize
        self._require("blur_kernel", fits, "less than twice the map's side to reflect")

    def _require(self, key: str, ok: bool, expected: str) -> None:
        """Raise UserError unless `ok`."""
        require(ok, f"evaluation.{key}", expected, getattr(self, key))


def evaluation_maps(
    maps: Tensor, input_size: tuple[int, int], protocol: EvaluationProtocol
) -> Tensor:
    """Resize anomaly maps to the resolution of the evaluation, and smooth them.

    Args:
        maps: ``[N, h, w]`` maps of a detector, higher = more anomalous.
        input_size: Height and width of the images the detector saw, in pixels.
        protocol: Resolution and blur.

    Returns:
        ``[N, R, R]`` float maps: bilinear to the input size (corners aligned), bilinear to R x R
        (corners not aligned), then blurred.

    Source:
        docs/method.md, section 8, "Maps".
    """
    exact = torch.promote_types(maps.dtype, torch.float32)
    # The three steps are linear and separable: one product for each side.
    rows, columns = (
        torch.from_numpy(_evaluation_matrix(cells, pixels, protocol)).to(maps.device)
        for cells, pixels in zip(maps.shape[1:], input_size, strict=True)
    )
    device = maps.device.type
    # TF32 would lose digits, and autocast more.
    work = torch.float64 if device == "cuda" else exact
    mixed = torch.is_autocast_enabled(device)
    with torch.autocast(device, enabled=False) if mixed else contextlib.nullcontext():
        return (rows.to(work) @ maps.to(work) @ columns.to(work).T).to(exact)


def evaluation_masks(masks: Tensor, protocol: EvaluationProtocol) -> Tensor:
    """Resize masks to the resolution of the evaluation, and make them binary.

    Args:
        masks: ``[N, H, W]`` in [0, 1] at the detector's input size, 1 = defect, perhaps with grey
            edges from resampling.
        protocol: Resolution and mask rule.

    Returns:
        ``[N, R, R]`` bool: nearest neighbour, then the rule.

    Source:
        docs/method.md, section 8, "Masks".
    """
    side = (protocol.resize, protocol.resize)
    small = F.interpolate(masks[:, None].float(), size=side, mode="nearest")[:, 0]
    return small > _MASK_LEVEL[protocol.mask_rule]


def packed_masks(masks: Tensor) -> Tensor:
    """Pack masks ``[N, R, R]`` bool into bits, uint8 ``[N, ceil(R * R / 8)]``."""
    return torch.from_numpy(np.packbits(masks.flatten(1).numpy(), axis=1))


def unpacked_masks(bits: Tensor, side: int) -> Tensor:
    """Undo `packed_masks`: return ``[N, R, R]`` bool, R = ``side``."""
    masks = np.unpackbits(bits.numpy(), axis=1, count=side * side).view(np.bool_)
    return torch.from_numpy(masks.reshape(-1, side, side))


@lru_cache(maxsize=32)
def _evaluation_matrix(
    cells: int, pixels: int, protocol: EvaluationProtocol
) -> NDArray[np.float64]:
    """Return ``[R, cells]``, what `evaluation_maps` does along one side of a map."""
    large = _bilinear(np.eye(cells), np.linspace(0, cells - 1, pixels))
    places = (np.arange(protocol.resize) + 0.5) * pixels / protocol.resize - 0.5
    square = _bilinear(large, places.clip(0, pixels - 1))
    reach = protocol.blur_kernel // 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / protocol.blur_sigma) ** 2)
    mode: Any = "constant" if protocol.blur_padding == "zeros" else "reflect"
    padded = np.pad(square, ((reach, reach), (0, 0)), mode=mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis=0)
    matrix: NDArray[np.float64] = np.ascontiguousarray(windows @ (weights / weights.sum()))
    return matrix


def _bilinear(rows: NDArray[np.float64], places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows ``[n, c]`` interpolated at places in [0, n - 1]."""
    lower = np.floor(places).astype(int)
    upper = np.minimum(lower + 1, len(rows) - 1)
    share = (places - lower)[:, None]
    mixed: NDArray[np.float64] = (1 - share) * rows[lower] + share * rows[upper]
    return mixed

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from meds_plugin.evaluation.categories import METRICS, category_metrics
from meds_plugin.evaluation.protocol import (
    EvaluationProtocol,
    evaluation_maps,
    evaluation_masks,
    packed_masks,
    unpacked_masks,
)
from meds_plugin.metrics import curves as metrics
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from tests.conftest import Arrays

INPUT = (56, 56)  # input size of the golden models


def _close(actual: Tensor | list[float], expected: object, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=atol)


def _metrics(
    maps: Tensor, masks: Tensor, labels: Tensor, protocol: EvaluationProtocol
) -> tuple[dict[str, float | None], dict[str, str]]:
    scores = metrics.image_score(maps, top=protocol.image_top)
    return category_metrics(maps, scores, masks, labels, protocol=protocol)


# Against the reference's outputs.


def test_golden_64(golden: Callable[[str], Arrays]) -> None:
    data = golden("dinomaly_tiny")
    protocol = EvaluationProtocol(resize=64)
    maps = evaluation_maps(torch.from_numpy(data["amap.patch"][:, 0]), INPUT, protocol)
    masks = evaluation_masks(torch.from_numpy(data["gt"][:, 0]), protocol)
    _close(maps, data["eval64.amap"])
    np.testing.assert_array_equal(masks, data["eval64.mask"])
    _close(metrics.image_score(maps, top=protocol.image_top), data["eval64.image_score"])
    values, skipped = _metrics(maps, masks, torch.from_numpy(data["labels"]), protocol)
    assert not skipped
    # The last of the reference's is another AUPRO; own rounding may swap a few close pixels.
    _close([float(values[name] or 0) for name in METRICS[:6]], data["eval64.metrics"][:6], 1e-5)


def test_golden_64_metrics_of_the_same_maps(golden: Callable[[str], Arrays]) -> None:
    data = golden("dinomaly_tiny")
    maps, masks, labels = (
        torch.from_numpy(data[key]) for key in ("eval64.amap", "eval64.mask", "labels")
    )
    values, _ = _metrics(maps, masks, labels, EvaluationProtocol(resize=64))
    _close([float(values[name] or 0) for name in METRICS[:6]], data["eval64.metrics"][:6], 1e-6)
    assert values["P-AUPRO"] == metrics.aupro(maps, masks, 0.3)


def test_golden_256(golden: Callable[[str], Arrays]) -> None:
    data = golden("dinomaly_tiny")
    protocol = EvaluationProtocol()
    maps = evaluation_maps(torch.from_numpy(data["amap.patch"][:, 0]), INPUT, protocol)
    masks = evaluation_masks(torch.from_numpy(data["gt"][:, 0]), protocol)
    _close(maps[:, ::8, ::8], data["eval256.amap_sub8"])
    _close(maps.double().sum(dim=(1, 2)), data["eval256.amap_sum"], 0.05)
    np.testing.assert_array_equal(masks.sum(dim=(1, 2)), data["eval256.mask_sum"])
    _close(metrics.image_score(maps), data["eval256.image_score"])
    values, _ = _metrics(maps, masks, torch.from_numpy(data["labels"]), protocol)
    _close([float(values[name] or 0) for name in METRICS[:6]], data["eval256.metrics"][:6], 1e-5)


def test_golden_half_rule(golden: Callable[[str], Arrays]) -> None:
    data = golden("inpformer_tiny")
    gt = torch.from_numpy(data["gt"][:, 0])
    half = evaluation_masks(gt, EvaluationProtocol(resize=64, mask_rule="half"))
    np.testing.assert_array_equal(half, data["eval64.mask"].reshape(half.shape).astype(bool))
    nonzero = evaluation_masks(gt, EvaluationProtocol(resize=64))
    assert nonzero.sum() > half.sum()


def test_golden_kernel(golden: Callable[[str], Arrays]) -> None:
    kernel = golden("dinomaly_tiny")["gauss5s4"][0, 0]
    point = torch.zeros(1, 9, 9)
    point[0, 4, 4] = 1.0
    blurred = evaluation_maps(point, (9, 9), EvaluationProtocol(resize=9))[0]
    _close(blurred[2:7, 2:7], kernel, 1e-7)
    assert blurred.sum() == pytest.approx(1.0, abs=1e-6)


# Maps.


def test_border_is_darkened_only_by_zero_padding() -> None:
    flat = torch.full((1, 4, 4), 2.0)
    zeros = evaluation_maps(flat, (28, 28), EvaluationProtocol(resize=32))[0]
    reflected = evaluation_maps(
        flat, (28, 28), EvaluationProtocol(resize=32, blur_padding="reflect")
    )[0]
    assert zeros[16, 16] == pytest.approx(2.0, abs=1e-6)
    assert zeros[0, 16] < 1.25
    assert zeros[0, 0] < 0.8
    _close(reflected, torch.full((32, 32), 2.0), 1e-6)


def test_resizing_follows_the_two_conventions() -> None:
    ramp = torch.arange(4.0).expand(1, 4, 4)
    # Aligned corners: 4 values over 7 pixels in half steps; then 7 -> 14 without aligning them.
    protocol = EvaluationProtocol(resize=14, blur_kernel=1)
    row = evaluation_maps(ramp, (7, 7), protocol)[0, 5]
    expected = [0.0, *(0.125 + 0.25 * i for i in range(12)), 3.0]
    _close(row, expected, 1e-6)


def test_chunks_and_non_square_inputs() -> None:
    maps = torch.rand(70, 3, 5)
    protocol = EvaluationProtocol(resize=16)
    together = evaluation_maps(maps, (24, 40), protocol)
    alone = torch.cat([evaluation_maps(each[None], (24, 40), protocol) for each in maps])
    assert together.shape == (70, 16, 16)
    _close(together, alone, 1e-7)
    assert evaluation_maps(maps[:0], (24, 40), protocol).shape == (0, 16, 16)


def test_maps_keep_at_least_single_precision() -> None:
    maps = torch.rand(2, 4, 4, dtype=torch.float64)
    protocol = EvaluationProtocol(resize=16)
    full = evaluation_maps(maps, (28, 28), protocol)
    assert full.dtype == torch.float64
    half = evaluation_maps(maps.bfloat16(), (28, 28), protocol)
    assert half.dtype == torch.float32
    _close(half, evaluation_maps(maps.bfloat16().float(), (28, 28), protocol), 0.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _close(evaluation_maps(maps.float(), (28, 28), protocol), full, 1e-6)


# Masks.


def test_mask_rules() -> None:
    mask = torch.tensor([[[0.0, 0.01], [0.5, 0.51]]])
    nonzero = evaluation_masks(mask, EvaluationProtocol(resize=2))
    half = evaluation_masks(mask, EvaluationProtocol(resize=2, mask_rule="half"))
    assert nonzero.tolist() == [[[False, True], [True, True]]]
    assert half.tolist() == [[[False, False], [False, True]]]
    assert nonzero.dtype == torch.bool


def test_masks_are_resized_by_nearest_neighbour() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, 2, 0] = mask[0, 1, 1] = 1.0
    small = evaluation_masks(mask, EvaluationProtocol(resize=2))
    assert small.tolist() == [[[False, False], [True, False]]]
    large = evaluation_masks(mask.bool(), EvaluationProtocol(resize=8))
    assert large.sum() == 8


@pytest.mark.parametrize("side", [1, 5, 16])
def test_masks_are_packed_eight_to_a_byte(side: int) -> None:
    masks = torch.rand(4, side, side) < 0.5
    bits = packed_masks(masks)
    assert bits.shape == (4, -(-side * side // 8))
    assert torch.equal(unpacked_masks(bits, side), masks)


# The protocol.


def test_protocol_defaults() -> None:
    assert dataclasses.asdict(EvaluationProtocol()) == {
        "resize": 256,
        "blur_kernel": 5,
        "blur_sigma": 4.0,
        "blur_padding": "zeros",
        "mask_rule": "nonzero",
        "image_top": 0.01,
        "fpr_limit": 0.3,
        "aupimo": False,
    }
    with pytest.raises(dataclasses.FrozenInstanceError):
        EvaluationProtocol().resize = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("resize", 0),
        ("resize", 256.0),
        ("resize", True),
        ("blur_kernel", 4),
        ("blur_kernel", -1),
        ("blur_sigma", 0),
        ("blur_sigma", "wide"),
        ("blur_sigma", float("nan")),
        ("blur_padding", "same"),
        ("mask_rule", None),
        ("mask_rule", ["half"]),
        ("image_top", 1.5),
        ("fpr_limit", 0.0),
        ("fpr_limit", 30),
    ],
)
def test_protocol_names_the_wrong_key(key: str, value: object) -> None:
    settings: dict[str, Any] = {key: value}
    with pytest.raises(UserError, match=rf"^evaluation\.{key} must be [^\n]+, got ") as caught:
        EvaluationProtocol(**settings)
    assert repr(value) in str(caught.value)


def test_protocol_refuses_a_kernel_that_cannot_be_reflected() -> None:
    with pytest.raises(UserError, match=r"evaluation\.blur_kernel"):
        EvaluationProtocol(resize=2, blur_padding="reflect")
    assert EvaluationProtocol(resize=2).resize == 2

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from meds_plugin.data.samples import Variation
from meds_plugin.data.transforms import Preprocess, apply_variation
from meds_plugin.encoders.normalization import IMAGENET, Normalization
from meds_plugin.utils.errors import UserError


def _image(height: int, width: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))


SIZES = [
    ((50, 70), (448, 448), (392, 392)),
    ((300, 200), (64, 64), None),
    ((90, 91), (40, 33), (21, 18)),
    ((33, 17), (33, 17), (30, 12)),
    ((120, 200), (112, 224), None),
    ((1, 1), (28, 42), (14, 28)),
]


@pytest.mark.parametrize(("source", "size", "crop"), SIZES)
def test_equals_torchvision(
    source: tuple[int, int], size: tuple[int, int], crop: tuple[int, int] | None
) -> None:
    transforms = pytest.importorskip("torchvision.transforms", exc_type=ImportError)
    geometry = [
        transforms.Resize(size, antialias=True),
        transforms.ToTensor(),
        transforms.CenterCrop(crop or size),
    ]
    reference = transforms.Compose([*geometry, transforms.Normalize(IMAGENET.mean, IMAGENET.std)])
    preprocess = Preprocess(size, crop)
    image, mask = _image(*source), _image(*source, "L")
    tensor = preprocess(image)
    assert tensor.shape == (3, *preprocess.input_size)
    assert tensor.is_contiguous()
    torch.testing.assert_close(tensor, reference(image), rtol=0, atol=1e-6)
    expected = transforms.Compose(geometry)(mask)[0]
    torch.testing.assert_close(preprocess.mask(mask), expected, rtol=0, atol=1e-6)


def test_a_pixel_is_normalised_and_kept_in_place() -> None:
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[2, 5] = [255, 51, 0]
    tensor = Preprocess((6, 8), (4, 6))(Image.fromarray(pixels))  # cuts one pixel at each side
    wanted = [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, -0.406 / 0.225]
    torch.testing.assert_close(tensor[:, 1, 4], torch.tensor(wanted))
    black = [-mean / std for mean, std in zip(IMAGENET.mean, IMAGENET.std, strict=True)]
    torch.testing.assert_close(tensor[:, 0, 0], torch.tensor(black))


def test_a_normalization_of_ones_own_that_may_change_later() -> None:
    black, half = Image.new("RGB", (4, 4)), Normalization((0.5,) * 3, (0.5,) * 3)
    preprocess = Preprocess(4, normalization=half)
    torch.testing.assert_close(preprocess(black), torch.full((3, 4, 4), -1.0))
    preprocess.normalization = Normalization((0.5,) * 3, (0.25,) * 3)
    torch.testing.assert_close(preprocess(black), torch.full((3, 4, 4), -2.0))


def test_the_filter_is_of_images_masks_stay_bilinear() -> None:
    image, mask = _image(40, 50), _image(40, 50, "L")
    for kind in ("bicubic", "lanczos"):
        own = Preprocess(16, normalization=Normalization(IMAGENET.mean, IMAGENET.std, kind))
        small = np.asarray(image.resize((16, 16), Image.Resampling[kind.upper()]))
        found = IMAGENET.undo(own(image)) * 255
        torch.testing.assert_close(found.permute(1, 2, 0), torch.tensor(small).float())
        assert torch.equal(own.mask(mask), Preprocess(16).mask(mask))


def test_mask_stays_between_0_and_1_with_grey_edges() -> None:
    mask = Image.fromarray(np.kron(np.eye(2), np.full((16, 16), 255)).astype(np.uint8))
    small = Preprocess(9).mask(mask)
    assert small.dtype == torch.float32
    assert small.min() == 0
    assert small.max() == 1
    assert ((small > 0) & (small < 1)).any()


def test_sizes_in_all_forms() -> None:
    assert Preprocess(448, 392).input_size == (392, 392)
    assert Preprocess([448, 224], [392, 196]).input_size == (392, 196)
    assert Preprocess((448, 224)).input_size == (448, 224)


@pytest.mark.parametrize("crop", [65, (64, 65), (65, 64)])
def test_crop_larger_than_image(crop: int | tuple[int, int]) -> None:
    with pytest.raises(UserError, match=r"^data.crop=.* is larger than data.image_size=\[64, 64\]"):
        Preprocess(64, crop)


@pytest.mark.parametrize("size", [0, -3, 1.5, True, "64", [64], [64, 64, 64], [64, 0], None])
def test_wrong_size(size: int) -> None:
    with pytest.raises(UserError, match=r"data.image_size must be a positive whole number or"):
        Preprocess(size)


# ---- variations


def _smooth(height: int, width: int) -> Image.Image:
    small = np.random.default_rng(1).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(41, 60), (60, 41), (32, 32), (1, 1), (1, 30)])
def test_no_variation_leaves_the_image(size: tuple[int, int], mode: str) -> None:
    image = _image(*size, mode)
    varied = apply_variation(image, Variation(turn=0.0, scale=1.0))
    np.testing.assert_array_equal(np.asarray(varied), np.asarray(image))


@pytest.mark.parametrize("turn", [-8.0, 3.0, 90.0, 180.0])
def test_a_turn_is_counter_clockwise_about_the_centre(turn: float) -> None:
    image = _smooth(48, 64)
    varied = np.asarray(apply_variation(image, Variation(turn, 1.0))).astype(int)
    # The same bilinear turn by Pillow, whose corners are black: compare the inner circle.
    wanted = np.asarray(image.rotate(turn, Image.Resampling.BILINEAR)).astype(int)
    y, x = np.mgrid[:48, :64]
    inner = np.hypot(y - 23.5, x - 31.5) < 22
    assert np.abs(varied - wanted)[inner].max() <= 1
    assert varied.shape == (48, 64, 3)


def test_a_scale_above_one_enlarges_about_the_centre() -> None:
    pixels = np.zeros((40, 60), np.uint8)
    pixels[16:24, 24:36] = 255
    large = np.asarray(apply_variation(Image.fromarray(pixels), Variation(0.0, 2.0)))
    assert (large[14:26, 20:40] == 255).all()
    assert large[:11].max() == large[29:].max() == large[:, :17].max() == large[:, 43:].max() == 0
    small = np.asarray(apply_variation(Image.fromarray(pixels), Variation(0.0, 0.5)))
    whole = small[10:30, 15:45]  # reflections lie around it
    assert (whole[9:11, 13:17] == 255).all()
    assert whole[:7].max() == whole[13:].max() == whole[:, :11].max() == whole[:, 19:].max() == 0


@pytest.mark.parametrize(("turn", "scale"), [(10.0, 0.9), (-45.0, 1.0), (90.0, 0.3), (5.0, 1.2)])
@pytest.mark.parametrize("size", [(40, 60), (1, 1), (3, 50)])
def test_edges_are_reflected_not_black(turn: float, scale: float, size: tuple[int, int]) -> None:
    white = Image.new("RGB", (size[1], size[0]), (255, 250, 245))
    varied = np.asarray(apply_variation(white, Variation(turn, scale)))
    assert varied.shape == (*size, 3)
    assert (varied == [255, 250, 245]).all()
    # Beyond the left edge lies the left part again, not the right one.
    halves = np.zeros((40, 60), np.uint8)
    halves[:, :30] = 200
    shrunk = np.asarray(apply_variation(Image.fromarray(halves), Variation(0.0, 0.5)))
    assert (shrunk[:, :29] == 200).all()
    assert (shrunk[:, 31:] == 0).all()


def test_the_window_is_what_the_crop_keeps_of_the_image() -> None:
    assert Preprocess(64).window == (0.0, 0.0, 1.0, 1.0)
    assert Preprocess([40, 80], [20, 60]).window == (0.125, 0.25, 0.875, 0.75)

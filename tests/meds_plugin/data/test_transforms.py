from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from meds_plugin.data.transforms import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from meds_plugin.errors import UserError


def _image(height: int, width: int, mode: str = "RGB") -> Image.Image:
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8))


SIZES = [
    ((50, 70), (448, 448), (392, 392)),
    ((300, 200), (64, 64), None),
    ((90, 91), (40, 33), (21, 18)),
    ((33, 17), (33, 17), (30, 12)),
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
    reference = transforms.Compose([*geometry, transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
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
    black = [-mean / std for mean, std in zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    torch.testing.assert_close(tensor[:, 0, 0], torch.tensor(black))


def test_own_mean_and_std() -> None:
    tensor = Preprocess(4, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))(Image.new("RGB", (4, 4)))
    torch.testing.assert_close(tensor, torch.full((3, 4, 4), -1.0))


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


def test_wrong_normalisation() -> None:
    with pytest.raises(ValueError, match="three numbers"):
        Preprocess(64, std=(1, 0, 1))

"""Large scenes with small defects, made of photographs of magnetic tiles, for tiled training.

    python -m tests.benchmarks.scenes ../shared/data/magnetic_tile OUTPUT --side 2048 --defect 20

writes a data set in the layout of MVTec AD: each scene is one of a few photographs of good tiles,
enlarged, in another place and light each time, as a product comes before a camera; defective ones
have one to three real defects pasted in, reduced to the given size.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage

from meds_plugin.utils.progress import track
from meds_plugin.utils.rng import numpy_rng

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS = ("blowhole", "break", "crack")
_POOL = 8  # photographs that all scenes are made of
_MARGIN = 6  # pixels of a photograph around its defect


class Photographs:
    """The photographs of a data set in the layout of MVTec AD, with a category of that name.

    Args:
        root: Folder of the data set.
    """

    def __init__(self, root: Path) -> None:
        category = root / "magnetic_tile"
        self.good = sorted((category / "train" / "good").iterdir())[:_POOL]
        self.defects = [
            (file, category / "ground_truth" / kind / f"{file.stem}_mask.png")
            for kind in _KINDS
            for file in sorted((category / "test" / kind).iterdir())
        ]


def scene(files: list[Path], side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return an enlarged photograph ``[side, side]``, grey in [0, 255], with a camera's noise."""
    with Image.open(files[int(rng.integers(len(files)))]) as image:
        grey, (dy, dx) = image.convert("L"), rng.uniform(0, 0.05, 2)
        box = (dx * grey.width, dy * grey.height, grey.width, grey.height)
        enlarged = grey.resize((side, side), Image.Resampling.BICUBIC, box)
    light = rng.uniform(0.9, 1.1)
    noise = rng.normal(0, 2, (side, side)).astype(np.float32)
    return light * np.asarray(enlarged, np.float32) + noise


def paste(
    pixels: NDArray[np.float32],
    mask: NDArray[np.uint8],
    defect: tuple[Path, Path],
    size: int,
    rng: np.random.Generator,
) -> None:
    """Put a defect somewhere into a scene and its mask.

    Args:
        pixels: ``[H, W]``, changed.
        mask: ``[H, W]``, changed.
        defect: A photograph and its mask.
        size: Longer side of the defect's bounding box in pixels.
        rng: Chooses the place.
    """
    photograph, truth = (np.asarray(Image.open(file).convert("L")) for file in defect)
    regions, _ = ndimage.label(truth > 0)
    largest = 1 + int(np.bincount(regions.ravel())[1:].argmax())
    rows, columns = ndimage.find_objects(regions)[largest - 1]
    box = tuple(
        slice(max(0, part.start - _MARGIN), part.stop + _MARGIN) for part in (rows, columns)
    )
    longer = max(rows.stop - rows.start, columns.stop - columns.start)
    shape = regions[box] == largest
    height, width = (max(3, round(length * size / longer)) for length in shape.shape)
    small = np.asarray(Image.fromarray(photograph[box]).resize((width, height)), np.float32)
    alpha = Image.fromarray((shape * 255).astype(np.uint8)).resize((width, height))
    inside = np.asarray(alpha) > 127
    soft = (
        np.asarray(alpha.filter(ImageFilter.GaussianBlur(1)), np.float32)[..., None][..., 0] / 255
    )
    around = small[~inside].mean() if (~inside).any() else small.mean()
    top, left = (
        int(rng.integers(0, side - length))
        for side, length in zip(pixels.shape, (height, width), strict=True)
    )
    here = slice(top, top + height), slice(left, left + width)
    own = pixels[here]
    # The defect's contrast, on the brightness it comes to lie on.
    pixels[here] = own + soft * (small - around + own.mean() - own)
    mask[here] |= np.where(inside, 255, 0).astype(np.uint8)


def write_scenes(
    root: Path, output: Path, *, side: int, defect: int, counts: dict[str, int]
) -> None:
    """Write a data set.

    Args:
        root: Folder of the photographs' data set.
        output: Folder to write; made.
        side: Of a scene in pixels.
        defect: Longer side of a defect in pixels.
        counts: Scenes by folder: ``train/good``, ``test/good``, ``test/spot``.
    """
    photographs = Photographs(root)
    jobs = [(folder, number) for folder, count in counts.items() for number in range(count)]
    for folder, number in track(jobs, description="scenes", total=len(jobs)):
        rng = numpy_rng(0, "scene", folder, str(number))
        pixels = scene(photographs.good, side, rng)
        mask = np.zeros((side, side), np.uint8)
        if folder == "test/spot":
            for _ in range(int(rng.integers(1, 4))):
                chosen = photographs.defects[int(rng.integers(len(photographs.defects)))]
                paste(pixels, mask, chosen, defect, rng)
        file = output / "scenes" / folder / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)
        if folder == "test/spot":
            truth = output / "scenes" / "ground_truth" / "spot" / f"{number:03}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(truth)


def main() -> None:
    """Write the scenes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--defect", type=int, default=20)
    parser.add_argument("--train", type=int, default=24)
    parser.add_argument("--test", type=int, default=24)
    given = parser.parse_args()
    counts = {"train/good": given.train, "test/good": given.test // 2, "test/spot": given.test}
    write_scenes(given.root, given.output, side=given.side, defect=given.defect, counts=counts)
    print(f"{given.output}: {sum(counts.values())} scenes")


if __name__ == "__main__":
    main()

"""`data=synthetic`: synthetic product images, so that everything runs without any file.

Two products (`board`, `gear`) and two textures (`weave`, `wood`), each with four or five kinds of
defects and exact masks. As on a real line, defects recur: a kind has three *modes* (the same
scratch in the same place from the same gripper), one common, two rarer, and each image is a slight
variation of one. A detector that trains for long on contaminated images can learn them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meds_plugin.data.readers.arguments import chosen_categories
from meds_plugin.data.samples import Sample, Split
from meds_plugin.data.synthetic.board import board
from meds_plugin.data.synthetic.defects import FLAWS, Place
from meds_plugin.data.synthetic.gear import gear
from meds_plugin.data.synthetic.textures import weave, wood
from meds_plugin.data.transforms import height_and_width
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track
from meds_plugin.utils.rng import numpy_rng
from meds_plugin.utils.values import is_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meds_plugin.data.samples import Pixels
    from meds_plugin.data.synthetic.canvas import Canvas, Pose

__all__ = ["CATEGORIES", "synthetic_split"]

_SCENES: dict[str, Callable[[int, np.random.Generator], tuple[Canvas, Pose]]] = {
    "board": board,
    "gear": gear,
    "weave": weave,
    "wood": wood,
}
CATEGORIES: tuple[str, ...] = tuple(sorted(_SCENES))

MODES = 3
_CYCLE = (0, 0, 1, 0, 0, 2)  # mode of the n-th image of a kind; 4 : 1 : 1
_STRENGTH = (1.0, 0.85, 0.65)  # the rarest mode is the faintest
_REACH = {"board": (0.12, 0.30), "gear": (0.25, 0.31), "weave": (0.14, 0.32), "wood": (0.14, 0.32)}
_MIN_SIZE, _MAX_SIZE = 32, 1024


def synthetic_split(
    *,
    categories: Sequence[str] | None = None,
    seed: int = 0,
    size: int | Sequence[int] = 128,
    train_normal: int = 30,
    test_normal: int = 20,
    test_defective: int = 15,
    progress: bool = False,
) -> Split:
    """Return a data set of synthetic product images.

    An image depends only on `seed`, `size`, its category, kind and number: with fewer categories
    or images, the others are the same.

    Args:
        categories: Some of `CATEGORIES`; ``None``: all.
        seed: Another seed gives other images and other recurring defects.
        size: Side in pixels; of height and width, the longer: images are square, and resized later
            to what a detector takes.
        train_normal: Normal training images per category.
        test_normal: Normal test images per category.
        test_defective: Defective test images per category, spread evenly over the kinds of defects
            in sorted order.
        progress: Show a progress bar.

    Returns:
        A split whose samples hold their pixels, uint8 ``[side, side, 3]``, and, if defective, a
        mask of 0 and 255, uint8 ``[side, side]``. Names are as in MVTec's layout; training and test
        images are each sorted by name.

    Raises:
        UserError: If a category does not exist or a size or a count is out of range.
    """
    sides = height_and_width(size, "data.image_size")
    if min(sides) < _MIN_SIZE or max(sides) > _MAX_SIZE:
        msg = f"data.image_size={size}: data=synthetic needs {_MIN_SIZE} to {_MAX_SIZE} pixels"
        raise UserError(msg)
    for name, count in (
        ("train_normal", train_normal),
        ("test_normal", test_normal),
        ("test_defective", test_defective),
    ):
        if not is_whole(count) or count < 0:
            msg = f"data.source.{name} must be a whole number of at least 0, got {count!r}"
            raise UserError(msg)
    chosen = chosen_categories(categories, CATEGORIES, "data=synthetic")
    wanted: list[tuple[str, str, str, int]] = []
    for category in chosen:
        kinds = sorted(FLAWS[category])
        share, rest = divmod(test_defective, len(kinds))
        defects = {kind: share + (place < rest) for place, kind in enumerate(kinds)}
        wanted += [(category, "train", "good", n) for n in range(train_normal)]
        for kind, count in sorted({**defects, "good": test_normal}.items()):
            wanted += [(category, "test", kind, n) for n in range(count)]
    split = Split([], [])
    for image in track(wanted, description="synthetic images", enabled=progress):
        sample = _sample(*image, seed, max(sides))
        (split.train if image[1] == "train" else split.test).append(sample)
    return split


def _sample(category: str, split: str, kind: str, number: int, seed: int, size: int) -> Sample:
    rng = numpy_rng(seed, "synthetic", category, split, kind, number)
    path = f"{category}/{split}/{kind}/{number:03d}.png"
    if kind == "good":
        image, _ = _render(category, size, rng)
        return Sample(path, category, None, image)
    vary = numpy_rng(seed, "synthetic", category, split, kind, number, "flaw")
    place = _place(category, kind, number, seed, vary)
    flaw = FLAWS[category][kind]
    image, mask = _render(category, size, rng, lambda canvas: flaw(canvas, place))
    return Sample(path, category, kind, image, mask)


def _place(category: str, kind: str, number: int, seed: int, vary: np.random.Generator) -> Place:
    """Return the recurring defect of the n-th image of a kind, slightly varied."""
    mode = _CYCLE[number % len(_CYCLE)]
    common = numpy_rng(seed, "synthetic", category, "modes", kind)
    own = numpy_rng(seed, "synthetic", category, "modes", kind, mode)
    # The modes lie in three directions from the centre, so that no two share a place.
    direction = common.uniform(0, 2 * np.pi) + 2 * np.pi * mode / MODES + own.uniform(-0.3, 0.3)
    reach = own.uniform(*_REACH[category])
    angle, size = own.uniform(0, np.pi), own.uniform(0.85, 1.15)
    dx, dy, turn, grow, fade = vary.normal(size=5)
    return Place(
        x=0.5 + reach * np.cos(direction) + 0.008 * dx,
        y=0.5 + reach * np.sin(direction) + 0.008 * dy,
        angle=angle + 0.05 * turn,
        size=size * float(np.clip(1.0 + 0.05 * grow, 0.85, 1.15)),
        strength=_STRENGTH[mode] * float(np.clip(1.0 + 0.07 * fade, 0.8, 1.0 / _STRENGTH[mode])),
        mode=mode,
        lot=common.random(),
        shape=own,
        vary=vary,
    )


def _render(
    category: str,
    size: int,
    rng: np.random.Generator,
    flaw: Callable[[Canvas], None] | None = None,
) -> tuple[Pixels, Pixels]:
    """Return an image and its mask; without `flaw`, the same piece in the same light, unharmed."""
    canvas, pose = _SCENES[category](size, rng)
    if flaw is not None:
        flaw(canvas)
    return canvas.photograph(pose, rng)

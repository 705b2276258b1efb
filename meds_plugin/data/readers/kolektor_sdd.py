"""Reads KolektorSDD, which has no training images of its own: `data=kolektor_sdd`."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from meds_plugin.data.file_search import folders_in, images_in
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import sort_by_category
from meds_plugin.data.readers.layout_guess import guess_layout, wrong_layout
from meds_plugin.data.readers.mask_files import labelled_by_masks
from meds_plugin.data.samples import Split
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import numpy_rng
from meds_plugin.utils.text import first_few
from meds_plugin.utils.values import is_number, is_whole

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["read_kolektor_sdd"]

_NAME = "kolektor_sdd"
_LAYOUT = "kosNN/PartN.jpg and kosNN/PartN_label.bmp"


def read_kolektor_sdd(
    root: str | os.PathLike[str] | None,
    categories: Sequence[str] | str | None = None,
    *,
    train_share: float = 0.7,
    seed: int = 0,
) -> Split:
    """List the images ``<root>/kosNN/PartN.jpg``, of which ``PartN_label.bmp`` is the mask.

    An image is defective if its mask is not all zero, and is then a test image. Normal images are
    training or test images by their item ``kosNN``, in a random split. Masks are opened.

    Args:
        root: The data set's folder.
        categories: ``kolektor_sdd``, the only one; ``None``: the same.
        train_share: Share of the items whose normal images are training images, in (0, 1]; at least
            one item. A larger share adds items to those of a smaller one.
        seed: Of the random split; the run's seed does not change it.

    Returns:
        The images by name. Those without a readable mask are among the problems.

    Raises:
        UserError: If the folder has another layout, a number is out of its range, or no training
            image is left.

    Source: Tabernik et al. 2020, "Segmentation-based deep-learning approach"; not their split.
    """
    if not is_number(train_share) or not 0 < train_share <= 1:
        msg = f"data.source.train_share must be a share above 0, up to 1, got {train_share!r}"
        raise UserError(msg)
    if not is_whole(seed):
        msg = f"data.source.seed must be a whole number, got {seed!r}"
        raise UserError(msg)
    folder = data_folder(root, _LAYOUT)
    if guess_layout(folder) != _NAME:
        raise UserError(wrong_layout(folder, _NAME, _LAYOUT))
    names = chosen_categories(categories, [_NAME], f"data={_NAME}")
    split = Split([], [], folders=(folder,))
    items = [path for path in folders_in(folder) if re.fullmatch(r"kos\d+", path.name)]
    if empty := [path.name for path in items if not images_in(path)]:
        split.notes.append(f"no images in {first_few(empty)}")
    items = [path for path in items if path.name not in empty]
    found = labelled_by_masks(split, items, re.compile(r"Part\d+"), "_label", _NAME)
    lot = numpy_rng(seed, _NAME).permutation(len(items))
    trained = {items[place] for place in lot[: max(1, round(train_share * len(items)))]}
    for item, samples in found.items():
        normal = [sample for sample in samples if not sample.is_anomaly]
        if item in trained:
            split.train.extend(replace(sample, injected=False) for sample in normal)
        split.test.extend(s for s in samples if s.is_anomaly or item not in trained)
    return sort_by_category(split, names, source=f"data={_NAME}", masks="masks")

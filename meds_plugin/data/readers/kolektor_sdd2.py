"""Reads KolektorSDD2: `data=kolektor_sdd2`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import sort_by_category
from meds_plugin.data.readers.layout_guess import guess_layout, wrong_layout
from meds_plugin.data.readers.listed_images import mark_injected
from meds_plugin.data.readers.mask_files import labelled_by_masks
from meds_plugin.data.readers.part_folders import part_folder
from meds_plugin.data.samples import Split
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

__all__ = ["read_kolektor_sdd2"]

_NAME = "kolektor_sdd2"
_LAYOUT = "{train,test}/N.png and {train,test}/N_GT.png"


def read_kolektor_sdd2(
    root: str | os.PathLike[str] | None,
    categories: Sequence[str] | str | None = None,
    *,
    train_defective: bool = False,
) -> Split:
    """List the images ``<root>/{train,test}/N.png``, of which ``N_GT.png`` is the mask.

    An image is defective if its mask is not all zero. Masks are opened. Files of other names,
    such as the two copies in the published archive, are not read.

    Args:
        root: The data set's folder.
        categories: ``kolektor_sdd2``, the only one; ``None``: the same.
        train_defective: Whether the defective images in ``train`` are training images, too, which
            count as injected. Otherwise they are left out, and not tested either.

    Returns:
        The images by name. Those without a readable mask are among the problems.

    Raises:
        UserError: If the folder has another layout, or there is no normal training image.

    Source: Bozic et al. 2021, "Mixed supervision for surface-defect detection".
    """
    if not isinstance(train_defective, bool):
        msg = f"data.train_defective must be true or false, got {train_defective!r}"
        raise UserError(msg)
    folder = data_folder(root, _LAYOUT)
    if guess_layout(folder) != _NAME:
        raise UserError(wrong_layout(folder, _NAME, _LAYOUT))
    names = chosen_categories(categories, [_NAME], f"data={_NAME}")
    split = Split([], [], folders=(folder,))
    parts = [part_folder(folder, "train"), part_folder(folder, "test")]
    train, test = labelled_by_masks(split, parts, re.compile(r"\d+"), "_GT", _NAME).values()
    split.test.extend(test)
    split.train.extend(s for s in train if train_defective or not s.is_anomaly)
    if left := len(train) - len(split.train):
        split.notes.append(
            f"{left} of {len(train)} images in {parts[0].name} are defective and left out; "
            "data.train_defective=true trains on them"
        )
    mark_injected(split, "KolektorSDD2", always=True)
    return sort_by_category(split, names, source=f"data={_NAME}", masks="masks")

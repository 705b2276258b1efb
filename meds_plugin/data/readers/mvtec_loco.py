"""Reads MVTec LOCO AD, with several masks for an image: `data=mvtec_loco`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from meds_plugin.data.readers.arguments import data_folder
from meds_plugin.data.readers.layout_guess import guess_layout, wrong_layout
from meds_plugin.data.readers.mask_files import mask_folders
from meds_plugin.data.readers.mvtec import categories_in, read_categories, read_category
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from meds_plugin.data.samples import Split

__all__ = ["read_mvtec_loco"]

_LAYOUT = (
    "CATEGORY/{train/good,test/logical_anomalies} and CATEGORY/ground_truth/logical_anomalies/000/*"
)


def read_mvtec_loco(
    root: str | os.PathLike[str] | None,
    categories: Sequence[str] | str | None = None,
    *,
    validation: bool = True,
) -> Split:
    """List the images below ``<root>/<category>/{train,validation,test}``.

    All files in ``<category>/ground_truth/<kind>/<stem>`` together are the mask of an image; a
    category without ``ground_truth`` has no masks. Saturation (``defects_config.json``) is not
    read. Otherwise as `read_mvtec`.

    Args:
        root: The data set's folder, or that of a single category.
        categories: Which to read, in any order; ``None``: all.
        validation: Whether the normal images in ``validation`` are training images, too.

    Returns:
        The images by category and name, of training before those of validation.

    Raises:
        UserError: If the folder has another layout, or a category, training image or mask is
            missing.

    Source: Bergmann et al. 2022, "Beyond Dents and Scratches".
    """
    if not isinstance(validation, bool):
        msg = f"data.validation must be true or false, got {validation!r}"
        raise UserError(msg)
    folder = data_folder(root, _LAYOUT)
    if guess_layout(folder) != "mvtec_loco":
        raise UserError(wrong_layout(folder, "mvtec_loco", _LAYOUT))
    read = partial(read_category, validation=validation, masks=mask_folders)
    return read_categories(folder, categories_in(folder), categories, read)

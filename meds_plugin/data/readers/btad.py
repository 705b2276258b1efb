"""Reads BTAD: `data=btad`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meds_plugin.data.readers.arguments import data_folder
from meds_plugin.data.readers.layout_guess import guess_layout, wrong_layout
from meds_plugin.data.readers.mvtec import read_mvtec
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from meds_plugin.data.samples import Split

__all__ = ["read_btad"]

_LAYOUT = "{01,02,03}/{train/ok,test/ok,test/ko,ground_truth/ko}"


def read_btad(
    root: str | os.PathLike[str] | None, categories: Sequence[str] | str | None = None
) -> Split:
    """List the images below ``<root>/{01,02,03}/{train/ok, test/{ok,ko}, ground_truth/ko}``.

    A mask has the stem of its image, whatever their endings (BMP, PNG); what ``ground_truth/ok``
    holds is not read. Otherwise as `read_mvtec`.

    Args:
        root: The data set's folder, or that of a single category.
        categories: Which to read, in any order; ``None``: all.

    Returns:
        The images by category and name.

    Raises:
        UserError: If the folder has another layout, or a category, training image or mask is
            missing.

    Source: Mishra et al. 2021, "VT-ADL".
    """
    folder = data_folder(root, _LAYOUT)
    if guess_layout(folder) != "btad":
        raise UserError(wrong_layout(folder, "btad", _LAYOUT))
    return read_mvtec(folder, categories)

"""Finds files that a link leads to outside a data set's folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meds_plugin.data.samples import Sample

__all__ = ["links_out"]


def links_out(
    samples: Iterable[Sample],
    folders: Sequence[Path],
    *,
    root: str = "data.root",
    option: str = "data.outside_links=true",
) -> dict[str, str]:
    """Return the images whose file or mask lies outside the folders, behind a link.

    No file is opened. The folders themselves may be links.

    Args:
        samples: The images.
        folders: The folders that files must lie in; none: anywhere.
        root: What messages call the folders.
        option: The option that allows such links.

    Returns:
        A one-line reason for each such image, by `Sample.path`.
    """
    if not folders:
        return {}
    allowed = [folder.resolve() for folder in folders]
    real: dict[Path, Path] = {}  # by folder: few files are links themselves
    found: dict[str, str] = {}
    for sample in samples:
        for file in (sample.image, *sample.mask_parts):
            if not isinstance(file, Path):
                continue
            if file.parent not in real:
                real[file.parent] = file.parent.resolve()
            target = real[file.parent] / file.name
            if target.is_symlink():
                target = Path(os.path.realpath(target))  # never fails, unlike Path.resolve
            if not any(target.is_relative_to(folder) for folder in allowed):
                found.setdefault(
                    sample.path,
                    f"{shown(str(file))} leads outside {root}, to {shown(str(target))}: put the "
                    f"file itself there, or allow such links with {option}",
                )
    return found

"""Finds the masks of test images in a folder that mirrors theirs, for `data=folder`."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import is_folder, search_folder
from meds_plugin.data.readers.folder_patterns import locate
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from pathlib import Path

    from meds_plugin.data.readers.folder_patterns import Parts

__all__ = ["MaskFolder"]

_KEY = "data.masks"


class MaskFolder:
    """The masks in a folder, by the images they belong to.

    Args:
        given: The folder, relative to the root or absolute; ``None``: there are no masks.
        root: The data set's folder.

    Attributes:
        parts: The folder relative to the root; ``None`` if there is none.
        folders: The folder itself, if there is one.

    Raises:
        UserError: If it does not exist, contains the root, or cannot be read completely.
    """

    def __init__(self, given: str | os.PathLike[str] | None, root: Path) -> None:
        self.parts: Parts | None = None
        self.folders: tuple[Path, ...] = ()
        self._masks: dict[Parts, list[Path]] = {}
        self._owners: dict[Path, str] = {}
        self._text = f"{_KEY}={shown(str(given))}"
        if given is None:
            return
        found = locate(_KEY, str(given), root)
        if found is None or not found[0] or not is_folder(found[1]):
            what = "is data.root itself" if found and not found[0] else "is not a folder"
            where = f"relative to data.root={shown(str(root))}, or an absolute one"
            msg = f"{self._text} {what}; name one {where}"
            raise UserError(msg)
        self.parts, folder = found
        self.folders = (folder,)
        inner = search_folder(folder)
        if inner.unreadable:
            msg = f"{self._text}: {inner.unreadable[0][1]}"
            raise UserError(msg)
        for mask in inner.images:
            self._masks.setdefault(_key(mask.relative_to(folder).parts), []).append(mask)

    def mask(self, name: str, places: Iterable[Parts]) -> Path | None:
        """Return the mask of an image, if it has one.

        A mask lies at one of the image's places and has its stem, with or without ``_mask`` at the
        end, and the suffix of any image format.

        Args:
            name: The image's name.
            places: Where its mask may be, relative to the folder of masks.

        Raises:
            UserError: If several masks fit the image, or the mask fits another image too.
        """
        keys = [key for place in places for key in _keys(place)]
        masks = [mask for key in dict.fromkeys(keys) for mask in self._masks.get(key, [])]
        if len(masks) > 1:
            both = f"{shown(str(masks[0]))} and {shown(str(masks[1]))}"
            msg = f"{self._text}: {both} both fit {shown(name)}; remove or rename one of them"
            raise UserError(msg)
        for mask in masks:
            if (owner := self._owners.setdefault(mask, name)) != name:
                both = f"{shown(owner)} and {shown(name)}"
                msg = f"{self._text}: {shown(str(mask))} fits both {both}; rename one of them"
                raise UserError(msg)
        return masks[0] if masks else None

    def notes(self, unmasked: Iterable[Iterable[Parts]]) -> list[str]:
        """Say which masks belong to no test image.

        Args:
            unmasked: The places of normal test images, whose masks are ignored.
        """
        normal = {key for places in unmasked for place in places for key in _keys(place)}
        left = [
            mask
            for key, masks in self._masks.items()
            for mask in masks
            if mask not in self._owners and key not in normal
        ]
        if not left:
            return []
        count = f"{len(left)} of {sum(map(len, self._masks.values()))}"
        first = shown(str(left[0]))
        place = "the path of its image relative to data.test or to data.root"
        text = f"masks that belong to no test image: {count}, first {first}; a mask has {place}"
        return [f"{self._text}: {text}"]


def _key(parts: Parts) -> Parts:
    return (*parts[:-1], PurePosixPath(parts[-1]).stem)


def _keys(parts: Parts) -> tuple[Parts, Parts]:
    *folders, stem = _key(parts)
    return (*folders, stem), (*folders, f"{stem}_mask")

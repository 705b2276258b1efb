"""Decides the role of each image by the user's folders and patterns, for `data=folder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.faults import shown
from meds_plugin.data.words import Meaning, is_telling, meaning
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meds_plugin.data.readers.folder_patterns import Parts, Pattern

__all__ = ["Role", "RoleRules"]

_KIND = "anomaly"


class Role(NamedTuple):
    """What an image is used for.

    Attributes:
        test: Whether it is a test image.
        category: Its category.
        defect: Its kind of defect; ``None`` if it is normal or unknown.
        injected: ``False`` for training images known to be good.
        label: The folder's name or the pattern that says whether it is normal, if one does.
        by_folder: Whether that is the name of a folder.
        places: Its paths relative to the root and to the folder of test images: where its mask may
            be in the folder of masks.
    """

    test: bool
    category: str
    defect: str | None = None
    injected: bool | None = None
    label: str | None = None
    by_folder: bool = False
    places: tuple[Parts, ...] = ()


class _Match(NamedTuple):
    pattern: Pattern
    base: Parts


class RoleRules:
    """The user's rules for the roles of images (see `read_folder`).

    Args:
        patterns: The patterns of ``test``, ``normal`` and ``anomalous``.
        category: The only category; ``None``: the name of a folder.

    Attributes:
        unused: Patterns that have not matched an image so far.
    """

    def __init__(self, patterns: Mapping[str, Sequence[Pattern]], *, category: str | None) -> None:
        self._rules = tuple(patterns[key] for key in ("test", "normal", "anomalous"))
        self._category = category
        self.unused = [pattern for rule in self._rules for pattern in rule]

    def role(self, name: Parts) -> Role:
        """Return the role of an image.

        Args:
            name: Its name, in parts.

        Raises:
            UserError: If rules contradict each other, the category is unknown, or nothing says
                whether a test image is normal.
        """
        test, normal, anomalous = (self._match(patterns, name) for patterns in self._rules)
        if normal and anomalous:
            msg = (
                f"{_shown(name)} is in {normal.pattern.text} and in {anomalous.pattern.text}; "
                "name each image in one of them only"
            )
            raise UserError(msg)
        tested = test or anomalous
        category, after = self._category_of(name, tested, normal)
        if tested is None:
            if normal is None:
                return Role(False, category)
            return Role(False, category, injected=False, label=normal.pattern.text)
        places = _places(name, tested)
        if normal:
            return Role(True, category, label=normal.pattern.text, places=places)
        if anomalous:
            kinds = name[max(after, len(anomalous.base)) : -1]
            kind = (*kinds, *anomalous.base[-1:], _KIND)[0]
            return Role(True, category, kind, places=places)
        return _labelled_by_folder(name, tested, after, Role(True, category, places=places))

    def _match(self, patterns: Sequence[Pattern], name: Parts) -> _Match | None:
        """Return the first pattern that an image matches."""
        first = None
        for pattern in patterns:
            base = pattern.base(name)
            if base is not None:
                if pattern in self.unused:
                    self.unused.remove(pattern)
                first = first or _Match(pattern, base)
        return first

    def _category_of(
        self, name: Parts, test: _Match | None, normal: _Match | None
    ) -> tuple[str, int]:
        """Return the category, and the number of parts of the name up to it."""
        if self._category is not None:
            return self._category, 0
        start = 0
        # A folder beside those of the categories contains folders of categories itself.
        if test and test.pattern.literal and (test.pattern.outside or len(test.base) == 1):
            start = len(test.base)
        elif not test and normal and normal.pattern.outside:
            start = len(normal.base)
        if len(name) > start + 1:
            return name[start], start + 1
        msg = (
            f"{_shown(name)} lies in no folder of a category, as data.by_directory=true needs; "
            "move it into one, or give data.by_directory=false"
        )
        raise UserError(msg)


def _labelled_by_folder(name: Parts, test: _Match, after: int, role: Role) -> Role:
    """Complete the role of a test image by the names of its folders, as in MVTec's layout."""
    folders = name[max(after, len(test.base)) : -1]
    if not folders:
        msg = (
            f"nothing says whether {_shown(name)} in {test.pattern.text} is normal; give "
            "data.normal and data.anomalous, or move it to a folder named good or by its defect"
        )
        raise UserError(msg)
    meanings = [meaning(folder, of_defect=True) for folder in folders]
    # Further below, a folder may be called anything: scratch/fine is no normal image.
    meanings[1:] = [
        meant if meant is Meaning.UNCLEAR or is_telling(folder) else Meaning.KIND
        for folder, meant in zip(folders[1:], meanings[1:], strict=True)
    ]
    said = [
        meanings.index(each) for each in (Meaning.NORMAL, Meaning.DEFECTIVE) if each in meanings
    ]
    if len(said) == 2:
        both = " and ".join(shown(folders[place]) for place in said)
        msg = (
            f"the folders {both} contradict each other about {_shown(name)}; move it, or give "
            "data.normal and data.anomalous"
        )
        raise UserError(msg)
    if not said and Meaning.UNCLEAR in meanings:
        said = [meanings.index(Meaning.UNCLEAR)]
    label = folders[said[0] if said else 0]
    defect = None if Meaning.NORMAL in meanings else folders[0]
    return role._replace(defect=defect, label=label, by_folder=True)


def _places(name: Parts, match: _Match) -> tuple[Parts, ...]:
    below = name[len(match.base) :]
    return (below,) if name[0] == ".." else tuple(dict.fromkeys((name, below)))


def _shown(name: Parts) -> str:
    return shown("/".join(name))

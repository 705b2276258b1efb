"""Says what is odd about images, by comparison with the others of their set."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meds_plugin.utils.groups import group_indices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from meds_plugin.faults.measure import Look

__all__ = ["Issues", "find_issues"]

_FEW = 20  # a set of fewer images has no usual values
_MADS = 5
_GREY, _COLOURFUL = 3, 8  # mean differences of channels


class Issues(NamedTuple):
    """What is odd about N images.

    Attributes:
        images: The words for each: ``blurry``, ``dark``, ``overexposed``, ``low_information``,
            ``odd_size``, ``odd_aspect``, ``odd_colour`` (grey among coloured images, or coloured
            among grey ones), ``odd_mode``.
        sets: Sets with the words that hold for most of their images, which none of these is
            given.
    """

    images: list[tuple[str, ...]]
    sets: list[tuple[str, str]]


class _Rule(NamedTuple):
    """An image has the issue if it is further from its set's median than ``least`` and 5 MADs."""

    word: str
    value: Callable[[Look], float]
    side: int  # which is odd: above (1) or below (-1) the median, or both (0)
    least: float
    worst: float | None = None  # beyond it, an image has the issue in any set
    unless: tuple[str, ...] = ()  # what explains it


_RULES = (
    _Rule("dark", lambda look: look.brightness, -1, 1.5, 5),
    _Rule("overexposed", lambda look: look.clipped, 1, 0.25, 0.8),
    _Rule("low_information", lambda look: look.contrast, -1, 2, -1, ("dark", "overexposed")),
    _Rule("blurry", lambda look: look.sharpness, -1, 1.5, None, ("dark", "low_information")),
    _Rule("odd_size", lambda look: np.log2(look.width * look.height), 0, 1),
    _Rule("odd_aspect", lambda look: np.log2(look.width / look.height), 0, 0.25),
)


def find_issues(looks: Sequence[Look], sets: Sequence[str]) -> Issues:
    """Compare images with the others of their set.

    Args:
        looks: Of N images.
        sets: Their category or camera view.
    """
    words: list[tuple[str, ...]] = [()] * len(looks)
    usual = []
    for name, members in group_indices(sets).items():
        own = [looks[i] for i in members.tolist()]
        found: dict[str, NDArray[np.bool_]] = {}
        for rule in _RULES:
            odd, common = _odd(rule, own)
            for other in rule.unless:
                odd = odd & ~found[other]
            found[rule.word] = odd
            usual += [(name, rule.word)] if common else []
        found["odd_colour"] = _odd_colour(own) & ~found["dark"] & ~found["low_information"]
        found["odd_mode"] = _odd_mode(own)
        for place, i in enumerate(members.tolist()):
            words[i] = tuple(word for word, odd in found.items() if odd[place])
    return Issues(words, usual)


def _odd(rule: _Rule, looks: Sequence[Look]) -> tuple[NDArray[np.bool_], bool]:
    """Return which images of a set have an issue, and whether most have it, in absolute terms."""
    values = np.array([rule.value(look) for look in looks])
    away = values - np.median(values)
    mad = 1.4826 * np.median(np.abs(away))
    beyond = np.abs(away) if rule.side == 0 else rule.side * away
    odd = (beyond > max(rule.least, _MADS * mad)) & (len(looks) >= _FEW)
    if rule.worst is None:
        return odd, False
    # Which of more than 8 bits are white is only settled once all images are known.
    deep = np.array([look.bits > 8 for look in looks])
    bad = (rule.side * (values - rule.worst) > 0) & ~deep
    common = bool(2 * bad.sum() > len(looks))
    return (odd if common else odd | bad), common


def _odd_colour(looks: Sequence[Look]) -> NDArray[np.bool_]:
    colour = np.array([look.colour for look in looks])
    grey, colourful = colour < _GREY, colour > _COLOURFUL
    if len(looks) < _FEW:
        return np.zeros(len(looks), bool)
    usual = np.median(colour)
    odd: NDArray[np.bool_] = (grey & (usual > _COLOURFUL)) | (colourful & (usual < _GREY))
    return odd


def _odd_mode(looks: Sequence[Look]) -> NDArray[np.bool_]:
    """Return which images are stored otherwise than most."""
    modes = [(look.mode, look.bits) for look in looks]
    most, count = Counter(modes).most_common(1)[0]
    usual = len(looks) >= _FEW and 2 * count > len(looks)
    return np.array([usual and mode != most for mode in modes])

"""The images of a data set: where each lies, its name, what is known about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]

__all__ = ["Problem", "Sample", "Split", "Variation"]


@dataclass(frozen=True)
class Variation:
    """How a repeated image differs from its file.

    Attributes:
        turn: Rotation about the centre in degrees, counter-clockwise.
        scale: Scale factor about the centre; above 1 = larger.
    """

    turn: float
    scale: float


@dataclass(frozen=True, eq=False)
class Sample:
    """One image.

    Attributes:
        path: Name of the image: POSIX, relative to the data root, unique among the training and
            among the test images. All scores are keyed by it.
        category: The product or texture; metrics and statistics are per category.
        defect: Kind of defect; ``None`` if none is known.
        image: File, or pixels as uint8 ``[H, W, 3]``.
        mask: File, or uint8 ``[H, W]`` (0 = normal), or several files, of which it is the union;
            ``None``: there is none.
        injected: Whether a noise protocol put it into the training images; ``None``: unknown.
        view: Camera view, if the category has several: memories are sampled, and images selected,
            within each view.
        variation: Set where a noise protocol repeats an image with small changes.
        extra: Further columns of the data set's table.
        label: What the data set calls it: a word for normal, or for its defect.
    """

    path: str
    category: str
    defect: str | None
    image: Path | Pixels
    mask: Path | Pixels | tuple[Path, ...] | None = None
    injected: bool | None = None
    view: str | None = None
    variation: Variation | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None

    @property
    def is_anomaly(self) -> bool:
        """Whether the image is known to show a defect."""
        return self.defect is not None

    @property
    def mask_parts(self) -> tuple[Path | Pixels, ...]:
        """The mask's files or pixels; without a mask, none."""
        if self.mask is None:
            return ()
        return self.mask if isinstance(self.mask, tuple) else (self.mask,)

    @property
    def group(self) -> str:
        """The images among which it is selected: those of its category and view."""
        return self.category if self.view is None else f"{self.category}/{self.view}"


@dataclass(frozen=True)
class Problem:
    """An image that cannot be used.

    Attributes:
        path: Its name: `Sample.path`, or as a table has it.
        reason: What is wrong with which file and what to do, in one line.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Split:
    """Training and test images, each in a fixed order.

    Attributes:
        train: Images to train on.
        test: Images to evaluate on; may be empty.
        problems: Images that were found but cannot be used.
        notes: What is missing or was ignored, one line each.
        folders: The folders that all files must lie in; none: anywhere.
    """

    train: list[Sample]
    test: list[Sample]
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    folders: tuple[Path, ...] = ()

    @property
    def categories(self) -> list[str]:
        """Names of all categories, sorted."""
        return sorted({sample.category for sample in [*self.train, *self.test]})

"""What an image is to the rest of the package: where it lies, its name, what is known of it."""

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
        turn: Degrees, counter-clockwise, about the centre.
        scale: Factor, about the centre; above 1 = larger.
    """

    turn: float
    scale: float


@dataclass(frozen=True, eq=False)
class Sample:
    """One image.

    Attributes:
        path: Name of the image: POSIX, relative to the data root, unique within a set. All scores
            are keyed by it.
        category: The product or texture it belongs to; metrics and statistics are kept for each.
        defect: Kind of defect, or ``None`` for an image not known to show one.
        image: File, or pixels as uint8 ``[H, W, 3]``.
        mask: File, or uint8 ``[H, W]`` (0 = normal), or ``None`` where there is none.
        injected: Whether a noise protocol put it into the training set; ``None`` when unknown.
        view: Camera view, where a category has several: memories are drawn from each, and images
            are selected among those of the same view.
        variation: Set where a noise protocol repeats an image with small changes.
        extra: What else a table says of it, by column.
    """

    path: str
    category: str
    defect: str | None
    image: Path | Pixels
    mask: Path | Pixels | None = None
    injected: bool | None = None
    view: str | None = None
    variation: Variation | None = None
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_anomaly(self) -> bool:
        """Whether the image is known to show a defect."""
        return self.defect is not None

    @property
    def group(self) -> str:
        """The images it is compared with when some are selected: its category, or view of it."""
        return self.category if self.view is None else f"{self.category}/{self.view}"


@dataclass(frozen=True)
class Problem:
    """An image that cannot be used.

    Attributes:
        path: Its name, as `Sample.path` or as a table gives it.
        reason: What is wrong and what to do, in one line that names the file.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Split:
    """Training and test images, each in a fixed order.

    Attributes:
        train: Images to train on.
        test: Images to evaluate on; may be empty.
        problems: Images that a reader found and cannot give.
        notes: What is missing and therefore skipped, a line each.
        folders: The folders that all files are to lie in; none: anywhere.
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

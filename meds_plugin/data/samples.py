"""What an image is to the rest of the package: where it lies, its name, what is known of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]

__all__ = ["Sample", "Split"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image.

    Attributes:
        path: Name of the image: POSIX, relative to the data root, unique within a set. All scores
            are keyed by it.
        category: The product or texture it belongs to; statistics are kept per category.
        defect: Kind of defect, or ``None`` for a normal image.
        image: File, or pixels as uint8 ``[H, W, 3]``.
        mask: File, or uint8 ``[H, W]`` (0 = normal), or ``None`` where there is none.
        injected: Whether a noise protocol put it into the training set; ``None`` when unknown.
    """

    path: str
    category: str
    defect: str | None
    image: Path | Pixels
    mask: Path | Pixels | None = None
    injected: bool | None = None

    @property
    def is_anomaly(self) -> bool:
        """Whether the image shows a defect."""
        return self.defect is not None


@dataclass(frozen=True)
class Split:
    """Training and test images, each in a fixed order."""

    train: list[Sample]
    test: list[Sample]

    @property
    def categories(self) -> list[str]:
        """Names of all categories, sorted."""
        return sorted({sample.category for sample in [*self.train, *self.test]})

"""The memory ensemble as a run configures it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from meds_plugin.memory import bootstrap_scores, draw_subsets, expected_scores
from meds_plugin.memory.neighbors import Backend
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.rng import torch_generator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from meds_plugin.memory.patch_vectors import PatchVectors

__all__ = ["DTYPES", "MemorySettings", "ensemble_scores"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class MemorySettings:
    """How training patches are scored in stage 1.

    Attributes:
        ensemble: ``expected``: the mean over all random memories, in closed form. ``bootstrap``:
            the mean over ``size`` drawn ones, as the reference does it.
        ratio: Share of the images (or patches) that a memory holds, in (0, 1].
        size: Number of drawn memories; ``bootstrap`` only.
        unit: What is drawn: whole images (reference) or single patches (paper); patches only in
            closed form.
        replacement: Whether images are drawn with replacement (reference).
        leave_self_out: Whether an image's own patches never count as its memory.
        round_cosine: Round cosines to 5 decimals as the reference does; ``bootstrap`` only.
        products: Type of the matrix products, whose sums are float32 in any case; half-precision
            types are faster where the device gains by them and rank images almost the same.
        search: What finds the nearest patches, ``patch`` only: ``faiss``, ``torch``, or ``auto``,
            which takes faiss on a CPU.
    """

    ensemble: Literal["expected", "bootstrap"] = "expected"
    ratio: float = 0.1
    size: int = 100
    unit: Literal["image", "patch"] = "image"
    replacement: bool = True
    leave_self_out: bool = False
    round_cosine: bool = True
    products: Literal["float32", "bfloat16", "float16"] = "float32"
    search: Backend = "auto"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: Naming the key.
        """
        for key, value, allowed in (
            ("memory.ensemble", self.ensemble, ("expected", "bootstrap")),
            ("memory.unit", self.unit, ("image", "patch")),
            ("memory.products", self.products, tuple(DTYPES)),
            ("memory.search", self.search, get_args(Backend)),
        ):
            if value not in allowed:
                msg = f"{key} must be {' or '.join(allowed)}, got {value!r}"
                raise UserError(msg)
        if not isinstance(self.ratio, (int, float)) or not 0 < self.ratio <= 1:
            msg = f"memory.ratio must be in (0, 1], got {self.ratio!r}; 0.1 is the paper's"
            raise UserError(msg)
        if not isinstance(self.size, int) or self.size < 1:
            msg = f"memory.size must be at least 1, got {self.size!r}"
            raise UserError(msg)
        if self.search == "faiss" and self.products != "float32":
            msg = "memory.search=faiss takes memory.products=float32; with others take torch"
            raise UserError(msg)
        if self.ensemble == "bootstrap" and (self.unit == "patch" or self.leave_self_out):
            msg = (
                "memory.unit=patch and memory.leave_self_out=true need memory.ensemble=expected; "
                "the bootstrap draws whole images and leaves none out"
            )
            raise UserError(msg)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the products."""
        return DTYPES[self.products]


def ensemble_scores(
    features: Tensor | PatchVectors,
    settings: MemorySettings,
    *,
    seed: int,
    group: str,
    queries: Tensor | PatchVectors | None = None,
    views: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Score patches by their distance to random memories of one group's training features.

    Args:
        features: ``[N, P, D]`` training features of the group, or vectors made of them.
        settings: The ensemble.
        seed: The run's seed; matters to the bootstrap only.
        group: The group's name; its memories are drawn independently of other groups'.
        queries: ``[Q, P', D]`` features to score; default the training features themselves.
        views: The camera view of each training image, where there are several: every memory then
            holds ``ratio`` of each, and all are searched together.
        progress: Called with the pairs of images compared and their number.

    Returns:
        ``[Q, P']`` cosine distances in [0, 2], higher = more anomalous.

    Raises:
        UserError: If single patches are to be drawn from several views.
    """
    if views is not None and settings.unit == "patch":
        msg = "memory.unit=patch draws from all views alike: take memory.unit=image for them"
        raise UserError(msg)
    dtype = settings.dtype
    if settings.ensemble == "bootstrap":
        subsets = draw_subsets(
            len(features),
            settings.ratio,
            settings.size,
            generator=torch_generator(seed, "memory", group),
            replacement=settings.replacement,
            strata=views,
        )
        decimals = 5 if settings.round_cosine else None
        return bootstrap_scores(
            features, subsets, queries, decimals=decimals, dtype=dtype, progress=progress
        )
    # A group of one image has nothing else to be compared with: it stays its own memory.
    leave_out = settings.leave_self_out and queries is None and len(features) > 1
    return expected_scores(
        features,
        settings.ratio,
        queries=queries,
        unit=settings.unit,
        replacement=settings.replacement,
        leave_self_out=leave_out,
        strata=views,
        dtype=dtype,
        search=settings.search,
        progress=progress,
    )

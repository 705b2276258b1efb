"""Settings of the memory ensemble: the keys under ``memory`` of a run's configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import torch

from meds_plugin.memory.neighbors import Backend
from meds_plugin.memory.scores import Unit
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_list, is_number, is_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DTYPES", "MemorySettings", "check_interval"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_interval(key: str, interval: object) -> None:
    """Refuse what is not two ascending shares in [0, 1].

    Raises:
        UserError: Naming the key.
    """
    given = list(interval) if is_list(interval) else []
    numbers = [share for share in given if is_number(share)]
    if not (len(given) == len(numbers) == 2 and 0 <= numbers[0] < numbers[1] <= 1):
        msg = f"{key} must be two ascending shares in [0, 1], as [0,0.3], got {interval!r}"
        raise UserError(msg)


@dataclass(frozen=True)
class MemorySettings:
    """How training patches are scored in stage 1.

    Attributes:
        ensemble: ``expected``: the mean over all random memories, in closed form. ``bootstrap``:
            the mean over ``size`` sampled ones, as in the reference. ``interval``: no memories, but
            the mean over an interval of the distances to the other images, as in MuSc.
        ratio: Share of the images (or patches) that a memory holds, in (0, 1].
        size: Number of sampled memories; ``bootstrap`` only.
        interval: Ascending shares (lower, upper) in [0, 1] of the sorted distances, between which
            they are averaged; ``interval`` only.
        unit: What is sampled: whole images (reference) or single patches (paper; ``expected``
            only).
        replacement: Whether images are sampled with replacement (reference).
        stored: Maximum number of images per category that memories are sampled from, chosen at
            random; ``ratio`` is a share of these. ``None``: all. ``expected`` with whole images
            only.
        group_duplicates: Whether near-duplicates count as one image in memories and selection;
            not for single patches.
        keep: Share of a category's images, the least suspicious, from which a second look at the
            most suspicious patches samples its memories (see `refined_scores`); it gives the image
            scores. 1, as in the reference: no second look.
        keep_ratio: Share of those images in each memory of the second look.
        leave_self_out: Whether an image's own patches are left out of its memories; ``expected``
            only.
        round_cosine: Round cosines to 5 decimals as the reference does; ``bootstrap`` only.
        products: Type of the matrix products, which are always summed in float32. Half-precision
            types are faster if the device supports them and rank images almost the same.
        search: Nearest-neighbour search for ``unit="patch"``: ``faiss``, ``torch``, or ``auto``,
            which takes faiss where it can (see `neighbors`).
    """

    ensemble: Literal["expected", "bootstrap", "interval"] = "expected"
    ratio: float = 0.1
    size: int = 100
    interval: Sequence[float] = (0.0, 0.3)
    unit: Unit = "image"
    replacement: bool = True
    stored: int | None = 500
    group_duplicates: bool = False
    keep: float = 0.7
    keep_ratio: float = 0.2
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
            ("memory.ensemble", self.ensemble, ("expected", "bootstrap", "interval")),
            ("memory.unit", self.unit, get_args(Unit)),
            ("memory.products", self.products, tuple(DTYPES)),
            ("memory.search", self.search, get_args(Backend)),
        ):
            if value not in allowed:
                msg = f"{key} must be {' or '.join(allowed)}, got {value!r}"
                raise UserError(msg)
        for key, share, hint in (
            ("ratio", self.ratio, "0.1 is the paper's"),
            ("keep", self.keep, "1 takes no second look"),
            ("keep_ratio", self.keep_ratio, "0.2 is the default"),
        ):
            if not isinstance(share, (int, float)) or not 0 < share <= 1:
                msg = f"memory.{key} must be in (0, 1], got {share!r}; {hint}"
                raise UserError(msg)
        if not isinstance(self.size, int) or self.size < 1:
            msg = f"memory.size must be at least 1, got {self.size!r}"
            raise UserError(msg)
        if not isinstance(self.group_duplicates, bool):
            msg = f"memory.group_duplicates must be true or false, got {self.group_duplicates!r}"
            raise UserError(msg)
        if self.stored is not None and not (is_whole(self.stored) and self.stored >= 2):
            msg = (
                f"memory.stored must be a whole number of at least 2, or null, got {self.stored!r}"
            )
            raise UserError(msg)
        if self.search == "faiss" and self.products != "float32":
            msg = "memory.search=faiss needs memory.products=float32; use torch with others"
            raise UserError(msg)
        check_interval("memory.interval", self.interval)
        if self.ensemble != "expected" and (self.unit == "patch" or self.leave_self_out):
            msg = (
                "memory.unit=patch and memory.leave_self_out=true need memory.ensemble=expected; "
                "the bootstrap leaves no image out, the interval always leaves out an image's own"
            )
            raise UserError(msg)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the products."""
        return DTYPES[self.products]

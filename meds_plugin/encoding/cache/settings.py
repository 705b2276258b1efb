"""How the outputs of a detector's frozen part are cached."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from meds_plugin.memory.settings import DTYPES
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import torch

__all__ = ["CacheSettings"]


@dataclass(frozen=True)
class CacheSettings:
    """Where and how exactly a detector's frozen outputs are cached.

    Attributes:
        gb: Size, in GB (10^9 bytes), up to which the outputs of all training images are cached in
            memory, in every process; also that of one category's memory features before they go
            to a file. 0 caches nothing, neither in memory nor in files.
        dir: Folder for files; many runs may share it, also at the same time. ``None``: no files
            (a run on the command line has a folder of its own then, until it has finished).
        disk_gb: Size of the folder, in GB; the oldest files that no process uses make room.
        dtype: ``float32`` stores outputs as they are; the others take half the room.
        shared: Whether everything goes into the folder, for other runs, the memory's features too;
            else only what does not fit into memory, and the folder goes when the run is done.
    """

    gb: float = 4.0
    dir: str | None = None
    disk_gb: float = 50.0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    shared: bool = True

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UserError: Naming the key.
        """
        for key, value in (("cache.gb", self.gb), ("cache.disk_gb", self.disk_gb)):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value <= math.inf:
                msg = f"{key} must be a number of at least 0, got {value!r}; 0 caches nothing"
                raise UserError(msg)
        if self.dtype not in DTYPES:
            msg = f"cache.dtype must be {', '.join(DTYPES)}, got {self.dtype!r}"
            raise UserError(msg)

    @property
    def torch_dtype(self) -> torch.dtype:
        """What float32 outputs are cached as."""
        return DTYPES[self.dtype]

"""Settings for caching the outputs of a detector's frozen part."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from meds_plugin.memory.settings import DTYPES
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_number

if TYPE_CHECKING:
    import torch

__all__ = ["CacheSettings"]


@dataclass(frozen=True)
class CacheSettings:
    """Where a detector's frozen outputs are cached, and in which precision.

    Attributes:
        gb: Memory, in GB (10^9 bytes) per process, for the outputs of all training images; larger
            outputs go to files. Also the size above which one category's memory features go to a
            file. 0 caches nothing, neither in memory nor in files.
        dir: Folder for files; many runs may share it, even at the same time. ``None``: no files
            (on the command line: a folder inside the run's, removed at the end).
        disk_gb: Size limit of the folder, in GB; the oldest files that no process uses are removed.
        dtype: ``float32`` stores outputs unchanged; the others halve their size.
        shared: Whether everything goes into the folder for other runs, memory features included;
            else only what does not fit into memory, and the folder is removed at the end.
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
            if not is_number(value) or not 0 <= value <= math.inf:
                msg = f"{key} must be a number of at least 0, got {value!r}; 0 caches nothing"
                raise UserError(msg)
        if self.dtype not in DTYPES:
            msg = f"cache.dtype must be {', '.join(DTYPES)}, got {self.dtype!r}"
            raise UserError(msg)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The type in which float32 outputs are cached."""
        return DTYPES[self.dtype]

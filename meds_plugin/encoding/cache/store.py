"""Caches outputs of a detector's frozen part: in memory, in files, or not at all."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from meds_plugin.encoding.cache.folder import CacheFolder
from meds_plugin.encoding.cache.settings import CacheSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

__all__ = ["FrozenCache", "Kind", "OutputStore", "content_key", "output_key"]

Kind = Literal["encoded", "features"]


@dataclass(frozen=True)
class FrozenCache:
    """Which outputs of the frozen part are cached, and where.

    Attributes:
        settings: Sizes and type.
        kinds: What is cached; only the first kind may go into memory.
        folder: For files; ``None``: no files.
        weights: Returns a fingerprint of the frozen weights; called only if there is a folder.
    """

    settings: CacheSettings = field(default_factory=lambda: CacheSettings(gb=0.0))
    kinds: tuple[Kind, ...] = ("encoded",)
    folder: CacheFolder | None = None
    weights: Callable[[], str] = str

    @classmethod
    def open(
        cls, settings: CacheSettings, kinds: tuple[Kind, ...], weights: Callable[[], str]
    ) -> FrozenCache:
        """Return a cache, with the settings' folder if they have one and cache anything.

        Raises:
            UserError: If the folder cannot be created, written or locked.
        """
        if settings.dir is None or settings.gb <= 0 or settings.disk_gb <= 0:
            return cls(settings, kinds, None, weights)
        folder = CacheFolder(Path(settings.dir), limit_gb=settings.disk_gb)
        if settings.shared:
            folder.open()  # faults show before anything is computed
        return cls(settings, kinds, folder, weights)

    def make(self, kind: Kind, count: int) -> OutputStore:
        """Return a store for one kind of outputs of ``count`` images."""
        wanted = kind in self.kinds and self.settings.gb > 0
        limit = self.settings.gb * 1e9 if wanted and kind == self.kinds[0] else 0.0
        return OutputStore(
            count,
            limit=limit,
            dtype=self.settings.torch_dtype,
            folder=self.folder if wanted else None,
            shared=self.settings.shared,
        )


class OutputStore:
    """One kind of output of N images.

    The first outputs show the size and decide, once, where all go: into memory if they fit, else
    into files if they fit there, else nowhere.

    Args:
        count: N.
        limit: Bytes of memory.
        dtype: The type in which float32 outputs are cached.
        folder: For files.
        shared: Whether outputs go into files even if they are in memory.
    """

    def __init__(
        self,
        count: int,
        *,
        limit: float,
        dtype: torch.dtype,
        folder: CacheFolder | None,
        shared: bool,
    ) -> None:
        self._limit = limit
        self._dtype = dtype
        self._folder = folder
        self._shared = shared
        self._placed = limit <= 0 and folder is None
        self._subfolder = ""
        self._original_dtype: torch.dtype | None = None
        self._memory: Tensor | None = None
        self._keys: list[str] = [""] * count
        self._rows: dict[str, int] = {}

    @property
    def active(self) -> bool:
        """Whether outputs are cached, or may be once their size is known."""
        return not self._placed or self._memory is not None or self._folder is not None

    @property
    def may_be_shared(self) -> bool:
        """Whether other runs' files may hold outputs, but no `place` has been chosen yet."""
        return not self._placed and self._folder is not None and self._shared

    def complete(self, indices: Sequence[int] | None = None) -> bool:
        """Whether the outputs of all images, or of some, are cached."""
        if not self.active:
            return False
        every = self._keys if indices is None else [self._keys[index] for index in indices]
        return all(every)

    def cached(self) -> list[int]:
        """Return the images whose outputs are cached."""
        return [index for index, key in enumerate(self._keys) if key]

    def keys(self, indices: Sequence[int]) -> list[str]:
        """Return the content keys of images, empty where no output is cached."""
        return [self._keys[index] for index in indices]

    def disable(self) -> None:
        """Cache nothing: the outputs of an image vary."""
        self._placed, self._memory, self._folder = True, None, None

    def place(self, example: Tensor, name: Callable[[], str]) -> None:
        """Decide where to cache outputs, unless that has been decided.

        Args:
            example: ``[B, ...]`` outputs of any images.
            name: Returns a name for what computes them; called only if files are used.
        """
        if self._placed:
            return
        self._placed = True
        self._original_dtype = example.dtype
        one = self._rounded(example[:1].cpu())
        size = one.nbytes * len(self._keys)
        if size <= self._limit:
            self._memory = one.new_empty(len(self._keys), *one.shape[1:])
        wanted = self._shared or self._memory is None
        if self._folder is not None and wanted and self._folder.promise(size):
            self._subfolder = name()
        else:
            self._folder = None

    def round(self, values: Tensor) -> Tensor:
        """Round outputs as caching does, so that results do not depend on which are cached."""
        return self._rounded(values) if self.active else values

    def restore(self, values: Tensor) -> Tensor:
        """Convert cached outputs back to the type in which they were computed."""
        return values.to(self._original_dtype) if self.active and self._original_dtype else values

    def put(self, indices: Sequence[int], keys: Sequence[str], values: Tensor) -> None:
        """Cache rounded outputs ``[B, ...]`` of images with these content keys."""
        values = values.cpu()
        if self._memory is not None:
            self._memory[list(indices)] = values
        for index, key, value in zip(indices, keys, values, strict=True):
            cached = self._memory is not None
            if self._folder is not None:
                cached = self._folder.write(f"{self._subfolder}/{key}", value) or cached
            if cached:
                self._keys[index] = key
                self._rows[key] = index

    def get(self, indices: Sequence[int], *, pinned: bool = False) -> Tensor | None:
        """Return outputs ``[B, ...]``, not restored; None if one of them has been lost.

        Args:
            indices: Of which images.
            pinned: Put them into page-locked memory, from where they go to a GPU while it works.
        """
        if self._memory is not None:
            rows = self._memory
            out = _out(rows[0], len(indices)) if pinned else None
            return torch.index_select(rows, 0, torch.tensor(indices), out=out)
        found = [self.find(self._keys[index]) for index in indices]
        there = [value for value in found if value is not None]
        if len(there) < len(found):
            return None
        return torch.stack(there, out=_out(there[0], len(there)) if pinned else None)

    def find(self, key: str) -> Tensor | None:
        """Return the output, not restored, of an image with that content key, or None."""
        if self._memory is not None and key in self._rows:
            return self._memory[self._rows[key]]
        if self._folder is None or not self._subfolder:
            return None
        return self._folder.read(f"{self._subfolder}/{key}")

    def _rounded(self, values: Tensor) -> Tensor:
        return values.to(self._dtype) if self._original_dtype == torch.float32 else values


def _out(like: Tensor, count: int) -> Tensor:
    return torch.empty(count, *like.shape, dtype=like.dtype, pin_memory=True)


def content_key(image: Tensor) -> str:
    """Return a digest of one image ``[3, H, W]`` as the detector sees it, fully transformed."""
    digest = hashlib.blake2b(f"{image.dtype}{tuple(image.shape)}".encode(), digest_size=20)
    digest.update(image.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def output_key(kind: Kind, settings: CacheSettings, weights: str, example: Tensor) -> str:
    """Return a name for the computation of outputs.

    Detectors with the same frozen weights may use other layers or groups of them, so the name
    covers the outputs for two fixed images as well. A device or number of threads that rounds
    differently gets another name.

    Args:
        kind: What is computed.
        settings: For the type in which it is cached.
        weights: The frozen weights' fingerprint.
        example: The outputs for fixed images.
    """
    facts = [kind, settings.dtype, weights, str(example.dtype), list(example.shape)]
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=12)
    digest.update(example.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

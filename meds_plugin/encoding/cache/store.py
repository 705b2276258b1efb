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
    """What is cached of the frozen part's outputs, and where.

    Attributes:
        settings: Sizes and type.
        kinds: What is cached; memory is for the first of them.
        folder: For files; ``None``: no files.
        weights: Gives a fingerprint of the frozen weights; asked only where there is a folder.
    """

    settings: CacheSettings = field(default_factory=lambda: CacheSettings(gb=0.0))
    kinds: tuple[Kind, ...] = ("encoded",)
    folder: CacheFolder | None = None
    weights: Callable[[], str] = str

    @classmethod
    def open(
        cls, settings: CacheSettings, kinds: tuple[Kind, ...], weights: Callable[[], str]
    ) -> FrozenCache:
        """Return a cache with the settings' folder, if there is one and anything is cached.

        Raises:
            UserError: If the folder cannot be made or written.
        """
        if settings.dir is None or settings.gb <= 0 or settings.disk_gb <= 0:
            return cls(settings, kinds, None, weights)
        folder = CacheFolder(Path(settings.dir), limit_gb=settings.disk_gb)
        if settings.shared:
            folder.open()  # what is wrong with it shows before anything is computed
        return cls(settings, kinds, folder, weights)

    def make(self, kind: Kind, count: int) -> OutputStore:
        """Return the place for one kind of outputs of ``count`` images."""
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

    Where it goes is decided once, when the first outputs show their size: into memory if all fit,
    else into files if all fit there, else nowhere.

    Args:
        count: N.
        limit: Bytes of memory.
        dtype: What float32 outputs are cached as.
        folder: For files.
        shared: Whether everything goes into files, what is in memory too.
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
        self._decided = limit <= 0 and folder is None
        self._space = ""
        self._original: torch.dtype | None = None
        self._memory: Tensor | None = None
        self._keys: list[str] = [""] * count
        self._rows: dict[str, int] = {}

    @property
    def active(self) -> bool:
        """Whether outputs are cached, or may turn out to be."""
        return not self._decided or self._memory is not None or self._folder is not None

    @property
    def may_be_shared(self) -> bool:
        """Whether files of other runs may hold outputs, but it is not decided where to look."""
        return not self._decided and self._folder is not None and self._shared

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
        """Return the contents of images, empty where no output is cached."""
        return [self._keys[index] for index in indices]

    def disable(self) -> None:
        """Cache nothing: the outputs of an image are not always the same."""
        self._decided, self._memory, self._folder = True, None, None

    def place(self, example: Tensor, name: Callable[[], str]) -> None:
        """Decide where to cache outputs, unless that has been decided.

        Args:
            example: ``[B, ...]`` outputs of any images.
            name: Gives a name of what computes them; called only where there are files.
        """
        if self._decided:
            return
        self._decided = True
        self._original = example.dtype
        one = self._rounded(example[:1].cpu())
        size = one.nbytes * len(self._keys)
        if size <= self._limit:
            self._memory = one.new_empty(len(self._keys), *one.shape[1:])
        if self._memory is not None and not self._shared:
            self._folder = None
        if self._folder is not None and not self._folder.promise(size):
            self._folder = None
        if self._folder is not None:
            self._space = name()

    def round(self, values: Tensor) -> Tensor:
        """Round outputs as caching does, so that it makes no difference which are cached."""
        return self._rounded(values) if self.active else values

    def restore(self, values: Tensor) -> Tensor:
        """Give cached outputs the type that they were computed in."""
        return values.to(self._original) if self.active and self._original else values

    def put(self, indices: Sequence[int], keys: Sequence[str], values: Tensor) -> None:
        """Cache outputs ``[B, ...]``, rounded, of some images with these contents."""
        values = values.cpu()
        if self._memory is not None:
            self._memory[list(indices)] = values
        for index, key, value in zip(indices, keys, values, strict=True):
            cached = self._memory is not None
            if self._folder is not None:
                cached = self._folder.write(f"{self._space}/{key}", value) or cached
            if cached:
                self._keys[index] = key
                self._rows[key] = index

    def get(self, indices: Sequence[int]) -> Tensor | None:
        """Return outputs ``[B, ...]``, not restored; None if one of them is not there any more."""
        if self._memory is not None:
            return self._memory[list(indices)]
        found = [self.find(self._keys[index]) for index in indices]
        there = [value for value in found if value is not None]
        return torch.stack(there) if len(there) == len(found) else None

    def find(self, key: str) -> Tensor | None:
        """Return the output, not restored, of an image of that content, or None."""
        if self._memory is not None and key in self._rows:
            return self._memory[self._rows[key]]
        if self._folder is None or not self._space:
            return None
        return self._folder.read(f"{self._space}/{key}")

    def _rounded(self, values: Tensor) -> Tensor:
        return values.to(self._dtype) if self._original == torch.float32 else values


def content_key(image: Tensor) -> str:
    """Return a digest of one image ``[3, H, W]`` as the detector sees it.

    The file and every step of the transform are in it.
    """
    digest = hashlib.blake2b(f"{image.dtype}{tuple(image.shape)}".encode(), digest_size=20)
    digest.update(image.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def output_key(kind: Kind, settings: CacheSettings, weights: str, example: Tensor) -> str:
    """Return a name for what computes outputs.

    The weights' fingerprint alone would not tell detectors apart that take other layers or groups
    of them, so what it makes of two fixed images is in the name too. Where another device or number
    of threads rounds otherwise, it has another name.

    Args:
        kind: What is computed.
        settings: For the type in which it is cached.
        weights: The frozen weights' fingerprint.
        example: What it makes of fixed images.
    """
    facts = [kind, settings.dtype, weights, str(example.dtype), list(example.shape)]
    digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=12)
    digest.update(example.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()

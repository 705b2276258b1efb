"""A folder of tensors by name, for several processes at once.

A file holds one tensor: a header of fixed length with its name, type, shape and checksum, then its
bytes. Files come into being whole, by renaming, and are never changed; one that is damaged counts
as missing. Each process holds a lock on a list of the files it uses; the lock ends with the
process, however it ends, and then its files may make room for others.
"""

from __future__ import annotations

import json
import logging
import math
import mmap
import os
import uuid
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from meds_plugin.utils.errors import UserError
from meds_plugin.utils.file_locks import lock, try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

__all__ = ["CacheFolder"]

log = logging.getLogger(__name__)

_HEADER_BYTES = 512
_VERSION = 1
_TYPES = {
    str(kind).removeprefix("torch."): kind
    for kind in (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.uint8)
} | {"int64": torch.int64, "int32": torch.int32, "bool": torch.bool}
# Written before the folder's size is looked up again, as a share of the limit.
_RECOUNT = 0.01


class CacheFolder:
    """Tensors in files.

    Args:
        path: The folder; made when it is opened or first used.
        limit_gb: Size in GB (10^9 bytes) that the files may have in all. The oldest go first, by
            when they were last looked for; those that a living process uses stay.

    """

    def __init__(self, path: Path, *, limit_gb: float) -> None:
        self.path = path
        self._limit = limit_gb * 1e9
        self._id = uuid.uuid4().hex[:12]
        self._named: set[str] = set()
        self._checked: set[str] = set()
        self._promised = 0
        self._temporaries = 0
        self._complained = False
        self._size = self._since = 0  # in all, and written since that was counted
        self._uses: BinaryIO | None = None

    def open(self) -> None:
        """Make the folder and the list of what is used, if they are not there yet.

        Raises:
            UserError: If the folder cannot be made or written.
        """
        if self._uses is not None:
            return
        path = self.path
        try:
            path.mkdir(parents=True, exist_ok=True)
            with self._locked():
                uses = path.joinpath(f"{self._id}.uses").open("ab")
                alive = try_lock(uses)
        except OSError as error:
            msg = f"cache.dir={path} cannot be written ({error}): give another folder"
            raise UserError(msg) from error
        if not alive:
            msg = f"cache.dir={path}: its file system knows no locks: give another folder"
            raise UserError(msg)
        self._uses, self._size = uses, self._count()

    def promise(self, size: int) -> bool:
        """Set room aside for what this process is going to use; False where there is none."""
        self.open()
        if self._promised + size > self._limit:
            return False
        self._promised += size
        return True

    def read(self, name: str) -> Tensor | None:
        """Return a tensor, mapped from its file, or None where there is no sound one.

        Args:
            name: Of letters, digits and one slash, as it was written.
        """
        self._use(name)  # before it is looked for, so that nobody removes it in between
        path = self._file(name)
        try:
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):  # an empty file cannot be mapped
            self._drop(path, "cannot be read")
            return None
        try:
            tensor = _parsed(mapped, name, checksum=name not in self._checked)
        except (ValueError, KeyError, TypeError) as error:
            self._drop(path, f"is damaged ({error})")
            return None
        if name not in self._checked:
            self._checked.add(name)
            with suppress(OSError):
                os.utime(path)
        return tensor

    def write(self, name: str, tensor: Tensor) -> bool:
        """Store a tensor; return whether there is room for it.

        A file that is there already stays: its name says what it holds.
        """
        path = self._file(name)
        self._use(name)
        if path.exists():
            return True
        content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        size = _HEADER_BYTES + len(content)
        if not self._make_room(size):
            return False
        temporary = self._temporary()
        try:
            path.parent.mkdir(exist_ok=True)
            with temporary.open("wb") as file:
                file.write(_header(name, tensor, zlib.crc32(content)))
                file.write(content)
            temporary.replace(path)
        except OSError as error:
            if not self._complained:
                log.warning("cache: %s cannot be written (%s)", path, error)
            self._complained = True
            return False
        finally:
            temporary.unlink(missing_ok=True)
        self._checked.discard(name)
        self._size += size
        return True

    @contextmanager
    def scratch(self, size: int) -> Iterator[Path]:
        """Give a file of that size for a while; it does not count towards the limit.

        Raises:
            UserError: If the disk has no room.
        """
        self.open()
        path = self._temporary()
        try:
            try:
                with path.open("wb") as file:
                    if hasattr(os, "posix_fallocate"):
                        # A mapped file that runs out of disk would end the process.
                        os.posix_fallocate(file.fileno(), 0, max(1, size))
                    else:
                        file.truncate(size)
            except OSError as error:
                msg = f"cache.dir={self.path}: no room for {size / 1e9:.1f} GB ({error})"
                raise UserError(msg) from error
            yield path
        finally:
            with suppress(OSError):  # elsewhere than on POSIX a mapped file stays for now
                path.unlink(missing_ok=True)

    def close(self, *, remove: bool = False) -> None:
        """Give up all files.

        Args:
            remove: Remove them and the folder, which was for one job only.
        """
        if self._uses is None:
            return
        with self._locked():
            self._uses.close()
            self._uses = None
            self._clean()
        if remove:
            for path in self._files():
                path.unlink(missing_ok=True)
            self.path.joinpath("lock").unlink(missing_ok=True)
            for path in (*(p for p in self.path.iterdir() if p.is_dir()), self.path):
                with suppress(OSError):
                    path.rmdir()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from removing files, or from coming and going, meanwhile."""
        with self.path.joinpath("lock").open("ab") as file, lock(file):
            yield

    def _use(self, name: str) -> None:
        """Add a file to the list of those in use."""
        if self._uses is None:
            msg = "a folder is opened by what is promised to it"
            raise RuntimeError(msg)
        if name not in self._named:
            self._named.add(name)
            self._uses.write(f"{name}\n".encode())
            self._uses.flush()

    def _make_room(self, size: int) -> bool:
        """Remove old files until there is room for one more; return whether there is."""
        self._since += size
        if self._size + size <= self._limit and self._since <= _RECOUNT * self._limit:
            return True
        with self._locked():
            self._clean()
            self._size, self._since = self._count(), size
            if self._size + size > self._limit:
                self._evict(self._size + size - self._limit)
        return self._size + size <= self._limit

    def _evict(self, excess: float) -> None:
        lists = [path.read_text() for path in self.path.glob("*.uses")]
        used = {name for names in lists for name in names.split()}
        found = []
        for path in self._files():
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime, path.stat().st_size, path))
        for _, size, path in sorted(found):
            if excess <= 0:
                break
            if f"{path.parent.name}/{path.stem}" not in used:
                path.unlink(missing_ok=True)
                self._size -= size
                excess -= size

    def _clean(self) -> None:
        """Remove what processes that are no more have left: unfinished files, then their lists."""
        for uses in self.path.glob("*.uses"):
            if uses.stem == self._id and self._uses is not None:
                continue
            with suppress(OSError), uses.open("ab") as file:
                if not try_lock(file):
                    continue
                for path in self.path.glob(f"{uses.stem}-*.tmp"):
                    path.unlink(missing_ok=True)
                uses.unlink(missing_ok=True)

    def _count(self) -> int:
        size = 0
        for path in self._files():
            with suppress(FileNotFoundError):
                size += path.stat().st_size
        return size

    def _files(self) -> Iterator[Path]:
        return self.path.glob("*/*.tensor")

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.tensor"

    def _temporary(self) -> Path:
        self._temporaries += 1
        return self.path / f"{self._id}-{self._temporaries}.tmp"

    def _drop(self, path: Path, fault: str) -> None:
        log.warning("cache: %s %s; its image is encoded again", path, fault)
        path.unlink(missing_ok=True)


def _header(name: str, tensor: Tensor, checksum: int) -> bytes:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _TYPES:
        msg = f"cannot store a tensor of {tensor.dtype}"
        raise TypeError(msg)
    content = {
        "version": _VERSION,
        "name": name,
        "dtype": kind,
        "shape": list(tensor.shape),
        "crc32": checksum,
    }
    return json.dumps(content).encode().ljust(_HEADER_BYTES - 1) + b"\n"


def _parsed(mapped: mmap.mmap, name: str, *, checksum: bool) -> Tensor:
    """Return the tensor of a file.

    Raises:
        ValueError: If it is damaged, or another one than its name says.
    """
    header: Any = json.loads(mapped[:_HEADER_BYTES])
    if header["version"] != _VERSION or header["name"] != name:
        msg = "it holds something else"
        raise ValueError(msg)
    dtype, shape = _TYPES[header["dtype"]], [int(side) for side in header["shape"]]
    count = math.prod(shape)
    if len(mapped) != _HEADER_BYTES + count * dtype.itemsize:
        msg = f"it has {len(mapped)} bytes, which is not a tensor {shape}"
        raise ValueError(msg)
    if checksum and zlib.crc32(memoryview(mapped)[_HEADER_BYTES:]) != header["crc32"]:
        msg = "its bytes are not those that were written"
        raise ValueError(msg)
    return torch.frombuffer(mapped, dtype=dtype, count=count, offset=_HEADER_BYTES).view(shape)

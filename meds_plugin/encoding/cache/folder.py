"""A folder of named tensors that several processes use at once, also from several machines.

A safetensors file holds one tensor, with its name and checksum. Files appear complete, by renaming,
and never change; a damaged one counts as missing. Nothing is locked or mapped, which network drives
may not support: a file that another process removes is missing from then on, and made again. So
that this is rare, each process keeps a list of the files that it uses, and touches it as it reads
and writes; files of a list that has not been touched for a while may make room for others.
"""

from __future__ import annotations

import json
import logging
import os
import time
import uuid
import zlib
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

__all__ = ["CacheFolder"]

log = logging.getLogger(__name__)

# The folder's size is counted again after writing this share of the limit.
_RECOUNT_SHARE = 0.01
_BEAT = 10.0  # seconds between two touches of a process's list
_SILENCE = 600.0  # seconds after which it counts as gone


class CacheFolder:
    """Tensors in files.

    Args:
        path: The folder; created when it is opened or first used.
        limit_gb: Total size of the files in GB (10^9 bytes). The least recently read are removed
            first, but none that another process uses.
    """

    def __init__(self, path: Path, *, limit_gb: float) -> None:
        self.path = path
        self._limit = limit_gb * 1e9
        self._id = uuid.uuid4().hex[:12]
        self._listed: set[str] = set()
        self._checked: set[str] = set()
        self._promised = 0
        self._temporaries = 0
        self._warned = False
        self._size = self._written = 0  # of all files, and of those written since the last count
        self._uses: BinaryIO | None = None
        self._beaten = 0.0

    def open(self) -> None:
        """Create the folder and this process's list of files, unless that has been done.

        Raises:
            UserError: If the folder cannot be created or written.
        """
        if self._uses is not None:
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._uses = self._list_file().open("ab")
        except OSError as error:
            msg = f"cache.dir={self.path} cannot be written ({error}): give another folder"
            raise UserError(msg) from error
        self._size = self._count()

    def promise(self, size: int) -> bool:
        """Reserve bytes for this process's files; return False where there is no room."""
        self.open()
        if self._promised + size > self._limit:
            return False
        self._promised += size
        return True

    def read(self, name: str) -> Tensor | None:
        """Return a tensor, or None if its file is missing or damaged.

        Args:
            name: Letters, digits and one slash, as in `write`.
        """
        self._list(name)
        path = self._file(name)
        try:
            content = path.read_bytes()
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            facts, tensor = header["__metadata__"], load(content)["tensor"]
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            self._remove_damaged(path, f"cannot be read ({error})")
            return None
        unchecked = name not in self._checked
        if facts.get("name") != name or (unchecked and facts.get("crc32") != _checksum(tensor)):
            self._remove_damaged(path, "is damaged")
            return None
        if unchecked:
            self._checked.add(name)
            with suppress(OSError):
                os.utime(path)
        return tensor

    def write(self, name: str, tensor: Tensor) -> bool:
        """Store a tensor; return whether there is room for it.

        An existing file stays: its name determines its content.
        """
        path = self._file(name)
        self._list(name)
        if path.exists():
            return True
        tensor = tensor.detach().cpu().contiguous()
        content = save({"tensor": tensor}, {"name": name, "crc32": _checksum(tensor)})
        if not self._make_room(len(content)):
            return False
        temporary = self._temporary()
        try:
            path.parent.mkdir(exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError as error:
            if not self._warned:
                log.warning("cache: %s cannot be written (%s)", path, error)
            self._warned = True
            return False
        finally:
            temporary.unlink(missing_ok=True)
        self._checked.discard(name)
        self._size += len(content)
        return True

    @contextmanager
    def scratch(self, size: int) -> Iterator[Path]:
        """Provide a temporary file of that size, which does not count towards the limit.

        Raises:
            UserError: If the disk has no room.
        """
        self.open()
        path = self._temporary()
        try:
            try:
                with path.open("wb") as file:
                    if hasattr(os, "posix_fallocate"):
                        # Running out of disk while writing to a mapped file kills the process.
                        os.posix_fallocate(file.fileno(), 0, max(1, size))
                    else:
                        file.truncate(size)
            except OSError as error:
                msg = f"cache.dir={self.path}: no room for {size / 1e9:.1f} GB ({error})"
                raise UserError(msg) from error
            yield path
        finally:
            with suppress(OSError):  # Windows refuses while the file is mapped
                path.unlink(missing_ok=True)

    def close(self, *, remove: bool = False) -> None:
        """Release all files.

        Args:
            remove: Also remove them and the folder, which was for one job only.
        """
        if self._uses is None:
            return
        self._clean()
        self._uses.close()
        self._uses = None
        self._forget(self._list_file())
        if remove:
            for path in (*self._files(), *self.path.glob("*.tmp"), *self.path.glob("*.uses")):
                path.unlink(missing_ok=True)
            for path in (*(p for p in self.path.iterdir() if p.is_dir()), self.path):
                with suppress(OSError):
                    path.rmdir()

    def _list(self, name: str) -> None:
        """Add a file to the list of those in use, and show now and then that it is alive."""
        if self._uses is None:
            msg = "the cache folder is not open"
            raise RuntimeError(msg)
        if name not in self._listed:
            self._listed.add(name)
            self._uses.write(f"{name}\n".encode())
            self._uses.flush()
        if time.monotonic() - self._beaten > _BEAT:
            self._beaten = time.monotonic()
            with suppress(OSError):
                os.fsync(self._uses.fileno())  # other machines see nothing before
                os.utime(self._list_file())

    def _make_room(self, size: int) -> bool:
        """Remove old files until there is room for one more; return whether there is."""
        self._written += size
        if self._size + size <= self._limit and self._written <= _RECOUNT_SHARE * self._limit:
            return True
        self._clean()
        self._size, self._written = self._count(), size
        if self._size + size > self._limit:
            self._evict(self._size + size - self._limit)
        return self._size + size <= self._limit

    def _evict(self, excess: float) -> None:
        used, found = set[str](), []
        for path in self.path.glob("*.uses"):
            with suppress(FileNotFoundError):
                used.update(path.read_text().split())
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
        """Remove what processes left behind that are gone."""
        own = self._list_file()
        with suppress(OSError):
            os.utime(own)
            now = own.stat().st_mtime  # by the drive's clock
            for uses in self.path.glob("*.uses"):
                if now - uses.stat().st_mtime > _SILENCE:
                    self._forget(uses)

    def _forget(self, uses: Path) -> None:
        """Remove a process's unfinished files, then its list."""
        with suppress(OSError):
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

    def _list_file(self) -> Path:
        return self.path / f"{self._id}.uses"

    def _temporary(self) -> Path:
        self._temporaries += 1
        return self.path / f"{self._id}-{self._temporaries}.tmp"

    def _remove_damaged(self, path: Path, fault: str) -> None:
        log.warning("cache: %s %s; encoding the image again", path, fault)
        path.unlink(missing_ok=True)


def _checksum(tensor: Tensor) -> str:
    return str(zlib.crc32(tensor.flatten().view(torch.uint8).numpy().data))

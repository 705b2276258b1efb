"""Copies, links and moves of single files that can be repeated and never overwrite."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.check import content_digest
from meds_plugin.data.faults import shown
from meds_plugin.utils.atomic import replacing, write_bytes
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.progress import track
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.review.quarantine.manifest import How

__all__ = ["Transfer", "carry_out", "check_transfers", "lies_in", "require_no_faults"]


class Transfer(NamedTuple):
    """A file to be copied, linked or moved.

    Attributes:
        source: Where it is, absolute; or the content of a file.
        target: Where it goes.
        how: Which of these.
        digest: Of its content.
    """

    source: Path | bytes
    target: Path
    how: How
    digest: str

    def fault(self) -> str | None:
        """Say why it cannot be done; ``None`` if it can, or is done already."""
        target = shown(str(self.target))
        there = self.target.exists() or self.target.is_symlink()
        if self.how == "link":
            return f"{target} is in the way" if there and not self._done() else None
        if there and not self._same(self.target):
            return f"{target} is in the way, or was changed"
        if isinstance(self.source, bytes) or (there and self.how == "copy"):
            return None
        source = shown(str(self.source))
        if not self.source.exists():
            return None if there else f"{source} is missing"
        return None if self._same(self.source) else f"{source} was changed"

    def carry_out(self) -> None:
        """Do what is left to do.

        A move to another disk is a copy first, and the source goes when its copy is complete; a
        move that ended in between is finished.
        """
        if self._done():
            return
        self.target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(self.source, bytes):
            write_bytes(self.target, self.source)
        elif self.how == "link":
            self.target.symlink_to(self.source)
        elif self.how == "copy":
            self._copy(self.source)
        else:
            self._move(self.source)

    def _done(self) -> bool:
        if self.how == "link":
            return self.target.is_symlink() and self.target.readlink() == self.source
        moved = isinstance(self.source, bytes) or self.how == "copy" or not self.source.exists()
        return moved and self.target.exists()

    def _move(self, source: Path) -> None:
        if not self.target.exists():
            try:
                source.rename(self.target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._copy(source)
            else:
                return
        if not self._same(self.target):
            raise OSError(errno.EIO, "the copy differs from the file")
        source.unlink()

    def _copy(self, source: Path) -> None:
        with replacing(self.target) as temporary:
            shutil.copy2(source, temporary)

    def _same(self, file: Path) -> bool:
        return file.is_file() and content_digest(file.read_bytes()) == self.digest


def check_transfers(transfers: Sequence[Transfer]) -> None:
    """Look at all files before any is touched.

    Raises:
        UserError: If one is missing or was changed, or another file lies where it goes.
    """
    checked = track(transfers, description="check files", enabled=sys.stderr.isatty())
    require_no_faults([fault for each in checked if (fault := each.fault())])


def require_no_faults(faults: Sequence[str]) -> None:
    """Raise UserError if there are any; the message has the first few."""
    if faults:
        many = f" ({len(faults)} images)" if len(faults) > 1 else ""
        msg = f"nothing was touched: {first_few(faults)}{many}; fix that first"
        raise UserError(msg)


def lies_in(folder: Path, file: Path) -> bool:
    """Whether an absolute path leads into a folder, links on the way resolved, not its own."""
    place = Path(os.path.normpath(file))
    return file.is_absolute() and place.parent.resolve().is_relative_to(folder.resolve())


def carry_out(transfers: Sequence[Transfer], description: str) -> None:
    """Carry out transfers that were checked.

    Args:
        transfers: In this order.
        description: For the progress bar.

    Raises:
        UserError: If a file cannot be written; those before it are done.
    """
    for each in track(transfers, description=description, enabled=sys.stderr.isatty()):
        _attempt(each)


def _attempt(transfer: Transfer) -> None:
    try:
        transfer.carry_out()
    except OSError as error:
        msg = (
            f"{shown(str(transfer.target))} cannot be written ({error.strerror}): fix that "
            "and run the command again, which continues from there"
        )
        raise UserError(msg) from error

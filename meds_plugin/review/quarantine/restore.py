"""Moves the images of a quarantine back to where they were."""

from __future__ import annotations

from pathlib import Path

from meds_plugin.data.faults import shown
from meds_plugin.review.quarantine.manifest import read_manifest
from meds_plugin.review.quarantine.transfers import (
    Transfer,
    carry_out,
    check_transfers,
    lies_in,
)
from meds_plugin.review.training_images import data_root
from meds_plugin.utils.errors import UserError

__all__ = ["restore"]


def restore(run: Path, folder: Path) -> int:
    """Move files back by the manifest; those that are back already stay as they are.

    Args:
        run: The run whose images were moved: files go back into its data set only.
        folder: The quarantine. Its manifest stays.

    Returns:
        The number of files.

    Raises:
        UserError: If the folder has no manifest or holds copies or links; a file is gone or was
            changed, or another is in its place: nothing was touched then; or writing failed.
    """
    rows = [row for row in read_manifest(folder, "--restore") if row.how == "move"]
    if not rows:
        msg = (
            f"--restore={folder} holds no moved files, so there is nothing to move back: "
            "remove the folder when you no longer need it"
        )
        raise UserError(msg)
    root = data_root(run)
    for row in rows:
        if root is None or not lies_in(root, Path(row.source)):
            msg = f"--restore={folder}: {shown(row.source)} is not in the data set of {run}: "
            raise UserError(msg + "give the run that trained on the images")
    moves = [Transfer(folder / r.path, Path(r.source), "move", r.digest) for r in rows]
    check_transfers(moves)
    carry_out(moves, "restore files")
    return len(moves)

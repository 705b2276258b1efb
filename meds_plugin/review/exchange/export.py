"""Writes the training images of a run for another tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.review.decision_file import read_decisions
from meds_plugin.review.exchange.coco import coco_advice, coco_files
from meds_plugin.review.exchange.cvat import cvat_advice, cvat_files
from meds_plugin.review.exchange.entries import read_entries
from meds_plugin.review.exchange.fiftyone import fiftyone_advice, fiftyone_files
from meds_plugin.review.exchange.label_studio import label_studio_advice, label_studio_files
from meds_plugin.review.exchange.table import table_advice, table_files
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.utils.atomic import write_text
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from meds_plugin.review.exchange.entries import Entries

__all__ = ["FORMATS", "Exported", "export_images"]

_WRITERS = {  # what is written, and what to do with it
    "labelstudio": (label_studio_files, label_studio_advice),
    "fiftyone": (fiftyone_files, fiftyone_advice),
    "cvat": (cvat_files, cvat_advice),
    "coco": (coco_files, coco_advice),
    "csv": (table_files, table_advice),
}
FORMATS = tuple(_WRITERS)


class Exported(NamedTuple):
    """What was written.

    Attributes:
        files: The files.
        entries: What they hold.
        advice: How the other tool reads them.
    """

    files: list[Path]
    entries: Entries
    advice: str


def export_images(
    run: Path, kind: str, *, decisions: Path | None = None, output: Path | None = None
) -> Exported:
    """Write all training images of a run, from most to least suspicious.

    Args:
        run: The run's folder.
        kind: One of `FORMATS`.
        decisions: Decisions to write with them.
        output: The folder to write into; default: ``export/KIND`` in the run's, where an earlier
            export is replaced.

    Raises:
        UserError: As `read_decisions` and `read_entries`; or if ``output`` already has such a file
            of other content, or cannot be written.
    """
    folder = output or run / "export" / kind
    images = read_ranked_run(run).images
    decided = read_decisions(decisions, images, key="--decisions") if decisions else {}
    found = read_entries(run, decided, folder.absolute())
    files, advice = _WRITERS[kind]
    texts = {folder / name: text for name, text in files(found).items()}
    for file, text in texts.items():
        if output and file.exists() and file.read_bytes() != text.encode():
            msg = f"{file} already exists: give another folder with --output"
            raise UserError(msg)
    try:
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, text)
    except OSError as error:
        msg = f"{folder} cannot be written ({error.strerror}): give another folder with --output"
        raise UserError(msg) from error
    return Exported(list(texts), found, advice(found))

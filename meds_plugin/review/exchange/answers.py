"""Takes decisions from other tools into our ``decisions.csv``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from meds_plugin.data.csv_table import read_text
from meds_plugin.data.exclude import decision_word
from meds_plugin.data.faults import shown
from meds_plugin.review.decision_file import Decision, decisions_text, free_file, write_list
from meds_plugin.review.exchange.fiftyone import fiftyone_answers
from meds_plugin.review.exchange.label_studio import label_studio_answers
from meds_plugin.review.ranked_run import read_ranked_run
from meds_plugin.utils.errors import UserError, brief

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Imported", "import_decisions"]


class Imported(NamedTuple):
    """Decisions taken from a file.

    Attributes:
        file: The ``decisions.csv`` that was written.
        decided: Number of decisions in it.
        unknown: Names that the run does not have.
        missing: Images of the run without a decision.
        conflicts: Images decided both ways, which stay undecided.
    """

    file: Path
    decided: int
    unknown: list[str]
    missing: list[str]
    conflicts: list[str]


def import_decisions(run: Path, source: Path, *, output: Path | None = None) -> Imported:
    """Write the decisions that were made in Label Studio or FiftyOne on exported images.

    Args:
        run: The run that was exported.
        source: Label Studio's export as JSON; FiftyOne's ``samples.json``, or the folder with it.
        output: File to write; default: ``decisions.csv`` in the run's folder, or the first of
            ``decisions2.csv``, ... that is free.

    Raises:
        UserError: If the folder holds no run; the file cannot be read, is none of these or has an
            unknown decision; or the result cannot be written.
    """
    images = read_ranked_run(run).images
    answers = _answers(source / "samples.json" if source.is_dir() else source)
    names = {image.path for image in images}
    both = {name for name, said in answers.items() if len({each.drop for each in said}) > 1}
    decisions = {
        name: Decision(said[0].drop, "; ".join(dict.fromkeys(s.note for s in said if s.note)))
        for name, said in answers.items()
        if said and name in names - both
    }
    text = decisions_text(images, decisions)
    file = output or free_file(run, "decisions", text)
    write_list(file, text)
    return Imported(
        file,
        len(decisions),
        sorted(answers.keys() - names),
        [image.path for image in images if not answers.get(image.path)],
        [image.path for image in images if image.path in both],
    )


def _answers(file: Path) -> dict[str, list[Decision]]:
    """Return all decisions on each image that a file names."""
    where = f"--import={shown(str(file))}"
    found: dict[str, list[Decision]] = {}
    text = read_text(file, "--import")
    try:
        content: Any = json.loads(text)
        reader = fiftyone_answers if isinstance(content, dict) else label_studio_answers
        answers = list(reader(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = (
            f"{where} is neither Label Studio's JSON nor FiftyOne's samples.json "
            f"({brief(error)}): export it again, in full"
        )
        raise UserError(msg) from error
    for number, (name, word, note) in enumerate(answers, start=1):
        if not isinstance(name, str):
            msg = f"{where}: image {number} has no name from an export: import what --export wrote"
            raise UserError(msg)
        said = found.setdefault(name, [])
        drop = decision_word(str(word), f"{where}, {shown(name)}")
        if drop is not None:
            said.append(Decision(drop, str(note).strip()))
    return found

"""Writes the files of a run's folder."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from meds_plugin.data.module import ManifestRow
from meds_plugin.runs.manifest import manifest_changes
from meds_plugin.runs.read import read_rows
from meds_plugin.utils.atomic import csv_text, write_arrays, write_csv, write_json, write_text
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from meds_plugin.callbacks.training_scores import TrainingScores
    from meds_plugin.data import Problem, Sample
    from meds_plugin.evaluation.alarms import AlarmThresholds
    from meds_plugin.memory.embeddings import Embeddings

__all__ = ["RunFolder"]

RANKING = (
    "rank",
    "path",
    "category",
    "score",
    "selected",
    "injected",
    "memory",
    "distilled",
    "probability",
    "issues",
    "duplicate_group",
)
PROBLEMS = ("path", "reason")
GAP = ("category", "ratio", "images", "normal", "anomalous", "gap", "auroc")
SELECTION = ("step", "category", "kept", "threshold", "median", "mad", "contaminated")


class RunFolder:
    """The files of one run.

    Args:
        path: The folder; created if needed.

    Attributes:
        path: The folder.
        config: The run's complete configuration, resolved.
        checkpoint: Trainable weights, stage, selection and data order.
        metrics: The results; written last, so it marks a finished run.
        manifest: Exactly the training images, in order.

    Raises:
        UserError: If it cannot be created or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.checkpoint = path / "model.ckpt"
        self.metrics = path / "metrics.json"
        self.manifest = path / "manifest.csv"
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".probe"
            probe.write_bytes(b"")
            probe.unlink(missing_ok=True)  # another rank may have been faster
        except OSError as error:
            msg = (
                f"the run folder {path} cannot be written ({error.strerror}): "
                "give another one with hydra.run.dir=DIR"
            )
            raise UserError(msg) from None

    def write_config(self, text: str) -> None:
        """Write ``config.yaml``."""
        write_text(self.config, text)

    def write_manifest(self, rows: Sequence[ManifestRow]) -> None:
        """Write ``manifest.csv``; an existing one must agree.

        Raises:
            UserError: If the folder's run has other images: its scores belong to those.
        """
        text = csv_text(
            ManifestRow._fields,
            ({**row._asdict(), "injected": _as_int(row.injected)} for row in rows),
        )
        if not self.manifest.exists():
            write_text(self.manifest, text)
            return
        now = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        try:
            found = manifest_changes(read_rows(self.manifest), now)
        except KeyError as error:
            msg = f"{self.manifest} has no column {error}: restore it, or start a new run"
            raise UserError(msg) from None
        if found:
            msg = (
                f"the training images are no longer those of the run ({first_few(found)}): "
                "restore them, or start a new run"
            )
            raise UserError(msg)

    def write_skipped(self, problems: Sequence[Problem]) -> None:
        """Write ``skipped.csv``: images that are left out, if there are any."""
        if problems:
            write_csv(self.path / "skipped.csv", PROBLEMS, map(asdict, problems))

    def write_problems(self, problems: Sequence[Problem]) -> None:
        """Write ``bad_files.csv``: the images that stopped the run."""
        write_csv(self.path / "bad_files.csv", PROBLEMS, map(asdict, problems))

    def write_ranking(
        self,
        samples: Sequence[Sample],
        scores: TrainingScores,
        probability: Sequence[float | None] | None = None,
        findings: Sequence[tuple[Sequence[str], int | None]] | None = None,
    ) -> None:
        """Write ``ranking.csv``: training images from most to least suspicious.

        Args:
            samples: The training images.
            scores: Their scores.
            probability: The probability that each is contaminated; ``None`` where unknown.
            findings: The issues of each, in words without spaces, and the number of its group of
                near-duplicates.
        """
        chances = probability or [None] * len(samples)
        found = findings or [((), None)] * len(samples)
        order = sorted(range(len(samples)), key=lambda i: (-float(scores.score[i]), i))
        rows = (
            {
                "rank": rank,
                "path": samples[i].path,
                "category": samples[i].category,
                "score": _number(scores.score, i),
                "selected": int(scores.selected[i]),
                "injected": _as_int(samples[i].injected),
                "memory": _number(scores.memory, i),
                "distilled": _number(scores.distilled, i),
                "probability": None if (chance := chances[i]) is None else f"{chance:.4f}",
                "issues": " ".join(found[i][0]),
                "duplicate_group": found[i][1],
            }
            for rank, i in enumerate(order, start=1)
        )
        write_csv(self.path / "ranking.csv", RANKING, rows)

    def write_selection(self, history: Sequence[dict[str, Any]]) -> None:
        """Write ``selection.csv``: a row for each refresh and category."""
        write_csv(self.path / "selection.csv", SELECTION, history)

    def write_thresholds(self, thresholds: AlarmThresholds | None) -> None:
        """Write ``threshold.json``: alarm thresholds, and the scores they are derived from."""
        if thresholds is not None:
            write_json(self.path / "threshold.json", thresholds.as_json())

    def write_contamination(self, report: dict[str, Any]) -> None:
        """Write ``contamination.json``: the estimated contamination of each category."""
        write_json(self.path / "contamination.json", report)

    def write_embeddings(self, embeddings: Embeddings | None) -> None:
        """Write ``embeddings.npz``, in the manifest's order; a method without memory has none."""
        if embeddings is not None:
            arrays = {name: part.numpy() for name, part in embeddings._asdict().items()}
            write_arrays(self.path / "embeddings.npz", arrays)

    def write_gap(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write ``gap.csv``: the curve of Theorem 1."""
        write_csv(self.path / "gap.csv", GAP, rows)

    def write_examples(self, examples: Mapping[str, NDArray[Any]]) -> None:
        """Write ``examples.npz``: some test images with masks and maps, if there are any."""
        if examples:
            write_arrays(self.path / "examples.npz", examples)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write ``metrics.json``."""
        write_json(self.metrics, metrics)


def _as_int(value: bool | None) -> int | None:
    return None if value is None else int(value)


def _number(values: Tensor | None, index: int) -> str | None:
    return None if values is None else f"{float(values[index]):.7g}"

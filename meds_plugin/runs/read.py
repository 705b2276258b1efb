"""Reads a run's folder: configuration, results, tables, and whether the run is finished."""

from __future__ import annotations

import csv
import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from meds_plugin.utils.errors import UserError, brief

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["is_finished", "read_config", "read_embeddings", "read_metrics", "read_rows"]


def read_config(run: Path) -> DictConfig:
    """Return a run's configuration, resolved.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    file = run / "config.yaml"
    if not file.is_file():
        msg = f"{file} is missing: give the folder of a run, or copy its config.yaml there, too"
        raise UserError(msg)
    try:
        config = DictConfig(OmegaConf.to_container(OmegaConf.load(file), resolve=True))
        _ = config.data, config.backbone.detector
    except Exception as error:  # YAML and interpolations fail in many ways
        msg = f"{file} is not a configuration of a run ({brief(error)})"
        raise UserError(msg) from error
    return config


def read_metrics(run: Path) -> dict[str, Any]:
    """Return the content of a run's ``metrics.json``.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    file = run / "metrics.json"
    if not file.is_file():
        msg = f"{file} is missing: give the folder of a finished run"
        raise UserError(msg)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        _ = content["mean"], content["categories"], content["ranking"]["auprc"]
        _ = content["protocol"], content["cut_short"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{file} is not of a finished run ({brief(error)})"
        raise UserError(msg) from error
    return dict(content)


def is_finished(run: Path) -> bool:
    """Whether a run has valid results of all steps; a limit of the trainer may end it earlier."""
    try:
        return read_metrics(run)["cut_short"] is None
    except UserError:
        return False


def read_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a run's CSV file as dictionaries; none if there is no file.

    Raises:
        UserError: If it is damaged.
    """
    if not file.is_file():
        return []
    try:
        with file.open(newline="", encoding="utf-8") as text:
            return list(csv.DictReader(text, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        msg = f"{file} cannot be read ({error}): give the folder of a finished run"
        raise UserError(msg) from error


def read_embeddings(run: Path, count: int) -> dict[str, NDArray[np.float32]] | None:
    """Return what images show as vectors; ``None`` if the run's method has no memory.

    Args:
        run: The run's folder.
        count: Number of its training images.

    Returns:
        ``image`` and ``peak``, each ``[N, D]`` of unit length in the manifest's order (see
        `Embeddings`).

    Raises:
        UserError: If the file is damaged or belongs to other images.
    """
    file = run / "embeddings.npz"
    if not file.is_file():
        return None
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name].astype(np.float32) for name in ("image", "peak")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        msg = f"{file} is damaged ({brief(error)}): remove it, or copy the run again"
        raise UserError(msg) from error
    if any(part.ndim != 2 or len(part) != count for part in found.values()):
        msg = f"{file} and manifest.csv list different images: copy the run again"
        raise UserError(msg)
    return found

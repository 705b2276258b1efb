"""What a finished run hands to its loggers: final metrics and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

__all__ = ["final_values", "log_pictures"]


def final_values(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return a run's results by the names of the field, categories before a slash.

    Args:
        metrics: Content of ``metrics.json``.
    """
    values = dict(metrics["mean"])
    for category, own in metrics["categories"].items():
        values |= {f"{category}/{name}": value for name, value in own.items()}
    for part in ("ranking", "seconds"):
        numbers = {key: v for key, v in metrics[part].items() if not isinstance(v, dict)}
        values |= {f"{part}/{name}": value for name, value in numbers.items()}
    return {name: float(value) for name, value in values.items() if value is not None}


def log_pictures(loggers: Iterable[Any], files: Sequence[Path], step: int) -> None:
    """Hand pictures to the loggers that take some: TensorBoard, W&B, MLflow, Comet.

    Args:
        loggers: Lightning's.
        files: The pictures.
        step: The trainer's.
    """
    for logger in loggers:
        experiment: Any = getattr(logger, "experiment", None)
        for file in files:
            if hasattr(logger, "log_image"):  # W&B
                logger.log_image(key=file.stem, images=[str(file)])
            elif hasattr(experiment, "add_image"):  # TensorBoard
                with Image.open(file) as image:
                    pixels = np.asarray(image.convert("RGB"))
                experiment.add_image(file.stem, pixels, step, dataformats="HWC")
            elif hasattr(experiment, "log_artifact"):  # MLflow
                experiment.log_artifact(logger.run_id, str(file), "figures")
            elif hasattr(experiment, "log_image"):  # Comet
                experiment.log_image(str(file), name=file.stem, step=step)
        if files and hasattr(experiment, "flush"):
            experiment.flush()

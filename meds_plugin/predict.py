"""Judge new images: ``python -m meds_plugin.predict ckpt=RUN/model.ckpt images=DIR output=DIR``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meds_plugin.config.command_line import number, required, serve, switch
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["main"]

TEXTS = ("ckpt", "images", "output", "category", "device", "encoder.weights")
SWITCHES = (
    "overwrite",
    "by_directory",
    "heatmaps",
    "masks",
    "progress",
    "outside_links",
    "trust",
)


def main() -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    sys.exit(serve("predict", _predict, sys.argv[1:], texts=TEXTS))


def _predict(options: Mapping[str, Any]) -> None:
    ckpt = required(options, "ckpt", "RUN/model.ckpt")
    images, output = required(options, "images", "DIR"), required(options, "output", "DIR")
    size, workers = number(options, "batch_size", 1), number(options, "num_workers", 0)
    switches = {key: switch(options, key) for key in SWITCHES}
    overlay, scale = _share(options, "overlay"), _scale(options["scale"])
    # Heavy imports come late: a wrong option is answered at once.
    from meds_plugin.data.decoding import checked_limit
    from meds_plugin.prediction.folder import PredictionFolder
    from meds_plugin.prediction.inputs import find_images
    from meds_plugin.prediction.job import PredictionJob, RenderSettings
    from meds_plugin.prediction.load import load
    from meds_plugin.prediction.predictor import AlarmSettings

    max_pixels = checked_limit(options["max_pixels"], key="max_pixels")
    alarm = AlarmSettings(
        options["false_alarm_rate"], options["threshold"], options["pixel_threshold"]
    )
    target = Path(os.path.expanduser(output))  # noqa: PTH111 - Path.expanduser raises for `~nobody`
    found = find_images(images, outside_links=switches["outside_links"], without=target)
    folder = PredictionFolder(target, overwrite=switches["overwrite"])
    predictor = load(
        ckpt,
        device=options["device"] or "auto",
        encoder_weights=options["encoder.weights"],
        trust=switches["trust"],
    )
    rendering = RenderSettings(switches["heatmaps"], switches["masks"], scale, overlay)
    job = PredictionJob(predictor, alarm, folder, rendering)
    job.assign_categories(
        found, category=options["category"], by_directory=switches["by_directory"]
    )
    job.score(
        batch_size=size, workers=workers, max_pixels=max_pixels, progress=switches["progress"]
    )
    job.finish()


def _share(options: Mapping[str, Any], key: str) -> float:
    value = options[key]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        msg = f"{key} must be a share in [0, 1], got {value!r}"
        raise UserError(msg)
    return float(value)


def _scale(value: object) -> tuple[float, float] | None:
    if value is None:
        return None
    pair = isinstance(value, list) and len(value) == 2
    if not pair or not all(isinstance(v, int | float) for v in value) or not value[0] < value[1]:  # type: ignore[attr-defined,index]
        msg = f"scale must be [LOW, HIGH] with LOW < HIGH, got {value!r}"
        raise UserError(msg)
    return float(value[0]), float(value[1])  # type: ignore[index]


if __name__ == "__main__":
    main()

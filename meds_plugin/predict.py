"""Score new images: ``python -m meds_plugin.predict ckpt=RUN/model.ckpt images=DIR output=DIR``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from meds_plugin.config.command_line import Options, run_command
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.values import is_number

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_FLAGS = (
    "overwrite",
    "by_directory",
    "heatmaps",
    "masks",
    "progress",
    "outside_links",
    "trust",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    sys.exit(run_command("predict", _predict, arguments))


def _predict(options: Options) -> None:
    ckpt, images, output = options.text("ckpt"), options.text("images"), options.path("output")
    batch_size = options.whole_number("batch_size", minimum=1)
    workers = options.whole_number("num_workers", minimum=0)
    flags = {key: options.flag(key) for key in _FLAGS}
    overlay, scale = _overlay(options.value("overlay")), _scale(options.value("scale"))
    limits = [options.value(key) for key in ("false_alarm_rate", "threshold", "pixel_threshold")]
    # Heavy imports come late: a wrong option is answered at once.
    from meds_plugin.data.decoding import checked_limit
    from meds_plugin.prediction.folder import PredictionFolder
    from meds_plugin.prediction.inputs import find_images
    from meds_plugin.prediction.job import PredictionJob, RenderSettings
    from meds_plugin.prediction.load import load
    from meds_plugin.prediction.predictor import AlarmSettings

    max_pixels = checked_limit(options.value("max_pixels"), key="max_pixels")
    alarm = AlarmSettings(*limits)
    found = find_images(images, outside_links=flags["outside_links"], without=output)
    folder = PredictionFolder(output, overwrite=flags["overwrite"])
    predictor = load(
        ckpt,
        device=options.optional("device") or "auto",
        encoder_weights=options.optional("encoder.weights"),
        trust=flags["trust"],
    )
    rendering = RenderSettings(flags["heatmaps"], flags["masks"], scale, overlay)
    job = PredictionJob(predictor, alarm, folder, rendering)
    category = options.optional("category")
    job.assign_categories(found, category=category, by_directory=flags["by_directory"])
    job.score(
        batch_size=batch_size, workers=workers, max_pixels=max_pixels, progress=flags["progress"]
    )
    job.finish()


def _overlay(value: object) -> float:
    if not is_number(value) or not 0 <= value <= 1:
        msg = f"overlay must be a share in [0, 1], got {value!r}"
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

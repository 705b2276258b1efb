"""Example test images with ground truth and anomaly maps, all maps on one scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from meds_plugin.figures.style import grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from meds_plugin.runs.collection import Run

__all__ = ["tiles_figure"]

_COLUMNS = 9
_UNKNOWN = 255  # value of an unknown mask
_ROWS = ("image", "ground truth", "map")


def tiles_figure(run: Run) -> Figure | None:
    """Draw the examples that the run stored: image, ground truth, anomaly map."""
    path = run.path / "examples.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:
        examples: dict[str, NDArray[Any]] = {name: archive[name] for name in archive.files}
    count = len(examples["images"])
    bands = math.ceil(count / _COLUMNS)
    columns = math.ceil(count / bands)
    figure, axes = grid(3 * bands * columns, columns=columns, size=(1.3, 1.15))
    figure.set_layout_engine("compressed")
    low, high = (float(value) for value in examples["scale"])
    for axis in axes:
        axis.set_axis_off()
    for place in range(count):
        band, column = divmod(place, columns)
        image, truth, heat = (axes[(3 * band + row) * columns + column] for row in range(3))
        image.imshow(examples["images"][place])
        name = _short_name(str(examples["paths"][place]))
        image.set_title(f"{examples['categories'][place]}\n{name}", fontsize=7)
        mask = examples["masks"][place]
        if (mask == _UNKNOWN).all():
            truth.text(0.5, 0.5, "unknown", ha="center", va="center", fontsize=7)
            truth.set_aspect(mask.shape[0] / mask.shape[1])
        else:
            truth.imshow(mask, cmap="gray", vmin=0, vmax=1)
        values = examples["maps"][place].astype(np.float32)
        shown = heat.imshow(values, cmap="inferno", vmin=low, vmax=high)
    for row in range(3 * bands):
        first = axes[row * columns]
        label = first.text(-0.12, 0.5, _ROWS[row % 3], rotation=90, transform=first.transAxes)
        label.set(ha="right", va="center", fontsize=8)
    bar = figure.colorbar(shown, ax=axes, fraction=0.02, extend="both")
    bar.set_label("anomaly map (unitless), one scale for all images", fontsize=8)
    figure.suptitle(f"Test images: {run.row}, seed {run.seed}", fontsize=10)
    return figure


def _short_name(path: str) -> str:
    """Return the last two parts of a name, which say what the image shows in most layouts."""
    text = "/".join(path.split("/")[-2:])
    return text if len(text) <= 20 else f"...{text[-17:]}"

"""Test images with their truth and the anomaly map, all on one scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from meds_plugin.figures.style import grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from meds_plugin.runs.collection import Run

__all__ = ["tiles"]

_COLUMNS = 9
_UNKNOWN = 255
_ROWS = ("image", "truth", "map")


def tiles(run: Run) -> Figure | None:
    """Draw the examples that the run kept: image, truth, map."""
    path = run.path / "examples.npz"
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:
        kept: dict[str, NDArray[Any]] = {name: archive[name] for name in archive.files}
    count = len(kept["images"])
    bands = math.ceil(count / _COLUMNS)
    columns = math.ceil(count / bands)
    figure, axes = grid(3 * bands * columns, columns=columns, size=(1.25, 1.25))
    low, high = (float(value) for value in kept["scale"])
    shown = None
    for axis in axes:
        axis.set_axis_off()
    for place in range(count):
        band, column = divmod(place, columns)
        image, truth, heat = (axes[(3 * band + part) * columns + column] for part in range(3))
        image.imshow(kept["images"][place])
        defect = _kind(str(kept["paths"][place]))
        image.set_title(f"{kept['categories'][place]}\n{defect}", fontsize=7)
        mask = kept["masks"][place]
        if (mask == _UNKNOWN).all():
            truth.text(0.5, 0.5, "unknown", ha="center", va="center", fontsize=7)
        else:
            truth.imshow(mask, cmap="gray", vmin=0, vmax=1)
        shown = heat.imshow(
            kept["maps"][place].astype(np.float32), cmap="inferno", vmin=low, vmax=high
        )
    for row in range(3 * bands):
        axes[row * columns].text(
            -0.12,
            0.5,
            _ROWS[row % 3],
            rotation=90,
            ha="right",
            va="center",
            fontsize=8,
            transform=axes[row * columns].transAxes,
        )
    if shown is not None:
        bar = figure.colorbar(shown, ax=axes, fraction=0.02, extend="both")
        bar.set_label("anomaly map (no unit), the same scale everywhere", fontsize=8)
    figure.suptitle(f"Test images: {run.backbone}, {run.method}, seed {run.seed}", fontsize=10)
    return figure


def _kind(path: str) -> str:
    """Return the last two parts of a name, which say what the image shows in most layouts."""
    text = "/".join(path.split("/")[-2:])
    return text if len(text) <= 20 else f"...{text[-17:]}"

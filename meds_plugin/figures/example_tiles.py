"""Example test images with ground truth and anomaly maps, all maps on one scale."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from meds_plugin.figures.style import grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.text import Text
    from numpy.typing import NDArray

    from meds_plugin.runs.collection import Run

__all__ = ["tiles_figure"]

_COLUMNS = 9
_WIDTH = 1.3  # inches of a column
_GAP = 6  # pixels between the titles of neighbours
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
    height, width = examples["images"].shape[1:3]
    panel = float(np.clip(1.15 * height / width, 0.7, 2.4))
    figure, axes = grid(3 * bands * columns, columns=columns, size=(_WIDTH, panel))
    figure.set_figwidth(max(figure.get_figwidth(), 3))  # for the heading
    low, high = (float(value) for value in examples["scale"])
    titles = {}
    for axis in axes:
        axis.set_axis_off()
    for place in range(count):
        band, column = divmod(place, columns)
        image, truth, heat = (axes[(3 * band + row) * columns + column] for row in range(3))
        image.imshow(examples["images"][place])
        # The last two parts of a name say what the image shows in most layouts.
        *folder, name = str(examples["paths"][place]).split("/")[-2:]
        titles[image] = [*dict.fromkeys([str(examples["categories"][place]), *folder]), name]
        image.set_title("\n" * (len(titles[image]) - 1), fontsize=7)
        mask = examples["masks"][place]
        if (mask == _UNKNOWN).all():
            truth.text(0.5, 0.5, "unknown", ha="center", va="center", fontsize=7)
            truth.set_aspect(mask.shape[0] / mask.shape[1])
        else:
            truth.imshow(mask, cmap="gray", vmin=0, vmax=1)
        values = examples["maps"][place].astype(np.float32)
        area = (0, width, height, 0)  # a map may have other proportions than its image
        shown = heat.imshow(values, cmap="inferno", vmin=low, vmax=high, extent=area)
    for row in range(3 * bands):
        first = axes[row * columns]
        label = first.text(-0.12, 0.5, _ROWS[row % 3], rotation=90, transform=first.transAxes)
        label.set(ha="right", va="center", fontsize=8)
    bar = figure.colorbar(shown, ax=axes, fraction=0.02, extend="both")
    bar.set_label("anomaly map (unitless), one scale for all images", fontsize=8)
    figure.suptitle(f"Test images: {run.row}, seed {run.seed}", fontsize=10)
    _name_images(figure, titles, columns)
    return figure


def _name_images(figure: Figure, titles: dict[Axes, list[str]], columns: int) -> None:
    """Write lines above images, as much of each as fits between its neighbours."""
    figure.draw_without_rendering()  # places the images
    middles = [sum(axis.bbox.intervalx) / 2 for axis in list(titles)[:columns]]
    room = min(np.diff(middles), default=_WIDTH * figure.dpi) - _GAP
    for axis, (*heads, name) in titles.items():
        # The beginning of a folder and the end of a name say most.
        lines = [_fitting(axis.title, room, head, "{}...", slice(None, -1)) for head in heads]
        lines.append(_fitting(axis.title, room, name, "...{}", slice(1, None)))
        axis.title.set_text("\n".join(lines))


def _fitting(title: Text, room: float, line: str, form: str, kept: slice) -> str:
    """Return a line, shortened to so many pixels."""
    title.set_text(line)
    rest = line
    while len(rest) > 1 and title.get_window_extent().width > room:
        rest = rest[kept]
        title.set_text(form.format(rest))
    return title.get_text()

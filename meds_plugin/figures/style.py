"""The style of all figures, and how they are written."""

from __future__ import annotations

import contextlib
import io
import math
from typing import TYPE_CHECKING, Any

from meds_plugin.utils.atomic import write_bytes
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ANOMALOUS",
    "COLOURS",
    "MARKERS",
    "NORMAL",
    "count_axis",
    "grid",
    "log_axis",
    "save",
    "styled",
]

# Okabe and Ito's colour-blind safe palette, without its yellow, which is too light for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*", "p")
NORMAL, ANOMALOUS = COLOURS[0], COLOURS[1]

_RULES: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # names of files and categories may contain a $
    "legend.fontsize": 8,
    "svg.hashsalt": "meds_plugin",  # equal figures are equal files
    "svg.fonttype": "none",
}
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Apply the style inside the block, in which figures are drawn and saved.

    Raises:
        UserError: If matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        msg = "figures need matplotlib: pip install 'meds-plugin[plots]'"
        raise UserError(msg) from None
    with mpl.rc_context(_RULES):
        yield


def grid(
    count: int, *, size: tuple[float, float] = (3.2, 2.4), columns: int = 4
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels in rows; unused panels are hidden.

    Args:
        count: Number of panels.
        size: Width and height of a panel in inches.
        columns: At most this many panels per row.
    """
    from matplotlib.figure import Figure  # without matplotlib's global state

    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(
        figsize=(size[0] * columns, size[1] * rows + 0.5), dpi=150, layout="constrained"
    )
    axes: np.ndarray[Any, Any] = figure.subplots(rows, columns, squeeze=False)
    panels = list(axes.flat)
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def log_axis(axis: Axes) -> None:
    """Make the horizontal axis logarithmic, with a few plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    subs = (1.0,) if high > 200 * low else (1.0, 3.0) if high > 8 * low else (1.0, 2.0, 5.0)
    axis.xaxis.set_major_locator(LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def count_axis(axis: Axes) -> None:
    """Make the vertical axis one of counts: from 0, in round whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, steps=[1, 2, 5, 10]))


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure in each of the formats; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in formats:
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=_METADATA[kind])
        write_bytes(folder / f"{name}.{kind}", content.getvalue())
        written.append(folder / f"{name}.{kind}")
    return written

"""How all figures look, and how they are written."""

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
    "grid",
    "logarithmic",
    "save",
    "styled",
    "whole",
]

# Okabe and Ito's colours, which colour-blind eyes tell apart; the yellow is too light for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
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
    "text.parse_math": False,  # names of files and categories may hold a $
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
    """Apply the looks inside the block, in which figures are drawn and saved.

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
    count: int, *, size: tuple[float, float] = (3.2, 2.4), columns: int = 4, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a number of panels in rows; those left over are hidden.

    Args:
        count: Number of panels.
        size: Width and height of one, in inches.
        columns: Most panels in a row.
        **options: For matplotlib's ``subplots``.
    """
    from matplotlib.figure import Figure  # without matplotlib's global state

    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(
        figsize=(size[0] * columns, size[1] * rows + 0.5), dpi=150, layout="constrained"
    )
    axes: np.ndarray[Any, Any] = figure.subplots(rows, columns, squeeze=False, **options)
    panels = list(axes.flat)
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def logarithmic(axis: Axes) -> None:
    """Make the horizontal axis logarithmic, with plain numbers, few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_xscale("log")
    low, high = axis.get_xlim()
    subs = (1.0,) if high > 200 * low else (1.0, 3.0) if high > 8 * low else (1.0, 2.0, 5.0)
    axis.xaxis.set_major_locator(LogLocator(subs=subs))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def whole(axis: Axes) -> None:
    """Let the vertical axis count: from 0, in whole numbers."""
    from matplotlib.ticker import MaxNLocator

    axis.set_ylim(bottom=0)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure whole or not at all, in every format asked for."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in formats:
        content = io.BytesIO()
        figure.savefig(content, format=kind, metadata=_METADATA[kind])
        write_bytes(folder / f"{name}.{kind}", content.getvalue())
        written.append(folder / f"{name}.{kind}")
    return written

"""How all figures look, and how they are written."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from meds_plugin.atomic import write_bytes
from meds_plugin.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ANOMALOUS",
    "COLOURS",
    "FORMATS",
    "MARKERS",
    "NORMAL",
    "canvas",
    "grid",
    "require_matplotlib",
    "save",
]

# Okabe and Ito's colours, which colour-blind eyes tell apart; the yellow is too light for print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
NORMAL, ANOMALOUS = COLOURS[0], COLOURS[1]
FORMATS = ("png", "svg", "pdf")

_RULES = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "meds_plugin",  # equal figures are equal files
    "svg.fonttype": "none",
}
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def require_matplotlib() -> None:
    """Check that figures can be drawn.

    Raises:
        UserError: If matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        msg = "figures need matplotlib: pip install 'meds-plugin[plots]'"
        raise UserError(msg) from None


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, without matplotlib's global state."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def grid(
    count: int, *, size: tuple[float, float] = (3.2, 2.4), columns: int = 4, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with a number of panels in rows; those left over are hidden."""
    import matplotlib as mpl

    columns = min(columns, count)
    rows = math.ceil(count / columns)
    with mpl.rc_context(_RULES):
        figure = canvas(size[0] * columns, size[1] * rows + 0.3)
        axes: np.ndarray[Any, Any] = figure.subplots(rows, columns, squeeze=False, **options)
    panels = list(axes.flat)
    for panel in panels[count:]:
        panel.set_visible(False)
    return figure, panels[:count]


def save(figure: Figure, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write a figure whole or not at all, in every format asked for."""
    import matplotlib as mpl

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind in formats:
        content = io.BytesIO()
        with mpl.rc_context(_RULES):
            figure.savefig(content, format=kind, metadata=_METADATA[kind])
        write_bytes(folder / f"{name}.{kind}", content.getvalue())
        written.append(folder / f"{name}.{kind}")
    return written

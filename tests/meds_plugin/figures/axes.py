"""Reads what figures show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = ["panels", "x_of", "y_of"]


def panels(figure: Figure | None) -> list[Axes]:
    """Return the visible panels of a figure, each of which has a labelled vertical axis."""
    assert figure is not None
    visible = [axis for axis in figure.axes if axis.get_visible() and axis.axison]
    for axis in visible:
        assert axis.get_ylabel()
    return visible


def x_of(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_xdata())]


def y_of(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata())]

"""The published figures of MeDS and of what it was compared with, for the tables of a sweep."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["NAMES", "published_dataset", "published_value"]

# Our names of detectors, and the paper's.
NAMES = {"dinomaly": "Dinomaly", "inp_former": "INP-Former", "hvq": "HVQ"}

# Products tell a data set better than the reader does: many other sets come in the same layouts.
_CATEGORIES = {
    "mvtec": "bottle cable capsule carpet grid hazelnut leather metal_nut pill screw tile "
    "toothbrush transistor wood zipper",
    "visa": "candle capsules cashew chewinggum fryum macaroni1 macaroni2 pcb1 pcb2 pcb3 pcb4 "
    "pipe_fryum",
    "real_iad": "audiojack bottle_cap button_battery end_cap eraser fire_hood mint mounts pcb "
    "phone_battery plastic_nut plastic_plug porcelain_doll regulator rolled_strip_base "
    "sim_card_set switch tape terminalblock toothbrush toy toy_brick transistor1 u_block usb "
    "usb_adaptor vcpill wooden_beads woodstick zipper",
}
# The ablation, and Dinomaly with and without MeDS: all of one detector, under our names.
_ABLATION = "4"


def published_dataset(categories: Collection[str]) -> str | None:
    """Return the paper's data set that has exactly these categories, if one has."""
    names = set(categories)
    return next((k for k, text in _CATEGORIES.items() if names == set(text.split())), None)


def published_value(
    dataset: str, backbone: str, method: str, metric: str, noise: float
) -> float | None:
    """Return a published figure, in [0, 1].

    Args:
        dataset: ``mvtec``, ``visa`` or ``real_iad``.
        backbone: Our name of the detector.
        method: Our name of the method; ``plain`` and ``meds`` are the main tables' rows, the
            others the ablation's, which is on Dinomaly.
        metric: One of the seven, of which four are published.
        noise: Share of the normal training images, as the authors' lists have it.

    Source:
        Paper, Tables 1 to 4. Table 4's row of the plain detector differs from Table 1's under
        noise; Table 1's is given.
    """
    if backbone not in NAMES:
        return None
    name = NAMES[backbone]
    if method in ("plain", "meds"):
        wanted = name if method == "plain" else f"{name}+MeDS"
        found = [row for row in _rows() if row["method"] == wanted and row["table"] != _ABLATION]
    else:
        ablated = backbone == "dinomaly"
        found = [
            r for r in _rows() if r["table"] == _ABLATION and r["method"] == method and ablated
        ]
    for row in found:
        same = row["dataset"] == dataset and row["metric"] == metric
        if same and abs(float(row["noise_percent"]) - 100 * noise) < 1e-6:
            return float(row["value_percent"]) / 100
    return None


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with Path(__file__).with_name("published.csv").open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))

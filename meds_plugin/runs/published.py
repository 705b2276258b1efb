"""The paper's results for MeDS and the detectors it is compared with, for a sweep's tables."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["NAMES", "published_dataset", "published_value"]

# Our names of detectors and rivals, and the paper's names.
NAMES = {
    "dinomaly": "Dinomaly",
    "inp_former": "INP-Former",
    "hvq": "HVQ",
    "patchcore": "PatchCore",
    "softpatch": "SoftPatch",
    "inreach": "InReaCh",
    "fun_ad": "FUN-AD",
    "musc": "MuSc",
}

# Categories identify a data set; other sets come in the same layouts.
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
_ABLATION = "4"  # the table of the ablation, on Dinomaly, under our names of methods


def published_dataset(categories: Collection[str]) -> str | None:
    """Return the paper's data set that has exactly these categories, or ``None``."""
    names = set(categories)
    return next((k for k, text in _CATEGORIES.items() if names == set(text.split())), None)


def published_value(
    dataset: str, backbone: str, method: str, metric: str, noise: float
) -> float | None:
    """Return a published value in [0, 1], or ``None``.

    Args:
        dataset: ``mvtec``, ``visa`` or ``real_iad``.
        backbone: Our name of the detector, or of the rival that needs none.
        method: Our name of the method; ``plain``, ``meds`` and rivals are rows of the main tables,
            the others of the ablation, which is on Dinomaly.
        metric: One of the seven, of which four are published.
        noise: Share of the normal training images, as in the authors' lists.

    Source:
        Paper, Tables 1 to 4. Tables 1 and 4 differ for the plain detector under noise; Table 1
        counts.
    """
    name = NAMES.get(backbone)
    in_main = {"plain": name, "meds": f"{name}+MeDS", backbone: name}
    ablation = method not in in_main
    if name is None or (ablation and backbone != "dinomaly"):
        return None
    wanted = (dataset, in_main.get(method, method), metric, ablation)
    for row in _rows():
        found = (row["dataset"], row["method"], row["metric"], row["table"] == _ABLATION)
        if found == wanted and abs(float(row["noise_percent"]) - 100 * noise) < 1e-6:
            return float(row["value_percent"]) / 100
    return None


@cache
def _rows() -> tuple[dict[str, str], ...]:
    with Path(__file__).with_name("published.csv").open(newline="", encoding="utf-8") as file:
        return tuple(csv.DictReader(file))

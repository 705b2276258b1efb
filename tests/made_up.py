"""Made-up run folders, as tables and figures read them, and images."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from meds_plugin.data import Sample

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

VALUES = {"I-AUROC": 0.9, "I-AP": 0.8, "P-AP": 0.5, "P-AUPRO": 0.7}
SELECTION = ("step", "category", "kept", "threshold", "median", "mad", "contaminated")


def write_run(
    folder: Path,
    *,
    method: str = "meds",
    backbone: str = "dinomaly",
    noise: float | None = 0.4,
    seed: int = 0,
    value: float = 0.9,
    categories: Sequence[str] = ("nut", "tile"),
    known: bool = True,
    cut_short: str | None = None,
    **overrides: Any,
) -> Path:
    """Write the folder of a finished run whose image AUROC is ``value``; return it."""
    folder.mkdir(parents=True)
    config = OmegaConf.create(
        {
            "seed": seed,
            "noise": noise,
            "noise_definition": "normal",
            "noise_protocol": "overlap",
            "method": method,
            "encoder": {"model": "tf_efficientnet_lite0", "weights": None},
            "data": {
                "root": "/data/things",
                "noise": 0.0,
                "source": {"_target_": "meds_plugin.data.read_mvtec"},
            },
            "backbone": {"name": backbone, "detector": {"seed": seed, "decoder_depth": 2}},
            "memory": {"ratio": 0.1},
            "steps": {"distill": 10},
        }
    )
    for key, given in overrides.items():
        OmegaConf.update(config, key.replace("__", "."), given)
    OmegaConf.save(config, folder / "config.yaml")
    found = {"auprc": 0.6, "inspection_depth": 0.5} if known else dict.fromkeys(("auprc",))
    ranking: dict[str, Any] = {"auprc": None, "inspection_depth": None, **found}
    values = {**VALUES, "I-AUROC": value}
    metrics = {
        "mean": values,
        "categories": dict.fromkeys(categories, values),
        "ranking": {**ranking, "categories": dict.fromkeys(categories, ranking)},
        "cut_short": cut_short,
        "seconds": {"memory": 1.0, "evaluate": 2.0},
        "protocol": {"method": method, "steps_done": 20, "total_steps": 20},
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    _write_tables(folder, method, categories, known=known)
    return folder


def write_sweep(root: Path) -> list[Path]:
    """Write runs of three methods at two noise levels, one of them with two seeds."""
    return [
        write_run(root / f"{noise}_{method}_{seed}", noise=noise, method=method, seed=seed, value=v)
        for noise, base in ((0.1, 0.8), (0.4, 0.7))
        for method, seed, v in (
            ("meds", 0, base),
            ("meds", 1, base + 0.1),
            ("plain", 0, base - 0.1),
            ("memory", 0, base - 0.2),
        )
    ]


def _write_tables(folder: Path, method: str, categories: Sequence[str], *, known: bool) -> None:
    rng = np.random.default_rng(len(method))
    rows = []
    for category in categories:
        for number in range(30):
            contaminated = number < 8
            score = float(rng.gamma(9, 0.1)) * (4 if contaminated else 1)
            rows.append(
                {
                    "path": f"{category}/{number}.png",
                    "category": category,
                    "score": score,
                    "selected": int(not contaminated),
                    "injected": int(contaminated) if known else None,
                    "memory": score if method != "plain" else None,
                    "distilled": None,
                }
            )
    rows.sort(key=lambda row: -float(row["score"]))  # type: ignore[arg-type]
    _write_csv(folder / "ranking.csv", ["rank", *rows[0]], rows)
    history = [
        {
            "step": step,
            "category": category,
            "kept": 20 + step,
            "threshold": 2 - step / 10,
            "median": 1.0,
            "mad": 0.1,
            "contaminated": step // 3 if known else None,
        }
        for step in range(0, 8, 2)
        for category in categories
        if method == "meds"
    ]
    _write_csv(folder / "selection.csv", SELECTION, history)
    gap = [
        {"category": c, "ratio": r, "normal": 0.2 - r / 10, "anomalous": 0.4 - r / 5}
        | {"images": 3, "gap": 0.2 - r / 10, "auroc": 0.9}
        for c in categories
        for r in (0.01, 0.1, 1.0)
        if method != "plain" and known
    ]
    if gap:
        _write_csv(folder / "gap.csv", list(gap[0]), gap)
        _write_examples(folder / "examples.npz")


def _write_examples(path: Path) -> None:
    np.savez(
        path,
        images=np.zeros((3, 8, 8, 3), np.uint8),
        masks=np.stack([np.zeros((8, 8)), np.ones((8, 8)), np.full((8, 8), 255)]).astype(np.uint8),
        maps=np.ones((3, 4, 4), np.float16),
        scale=np.array([0.0, 2.0], np.float32),
        paths=np.array(["nut/good/1.png", "nut/bad/$x_{1$.png", "nut/unknown/3.png"]),
        categories=np.array(["nut"] * 3),
    )


def _write_csv(path: Path, fields: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fields)
        writer.writeheader()
        writer.writerows(rows)


def stained(number: int, *, defect: bool = False, mask: bool = True) -> Sample:
    """Return an image of 16 pixels, with a red stain in its corner where it is defective."""
    pixels = np.random.default_rng(number).integers(90, 110, (16, 16, 3)).astype(np.uint8)
    truth = np.zeros((16, 16), np.uint8)
    if defect:
        pixels[:8, :8] = (250, 0, 0)
        truth[:8, :8] = 255
    return Sample(
        f"nut/{number}.png",
        "nut",
        "stain" if defect else None,
        pixels,
        mask=truth if defect and mask else None,
        injected=defect,
    )

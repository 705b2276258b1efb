"""Judge the contamination estimate where the truth is known.

Sets are simulated score sets, and the categories of finished runs (`ranking.csv` with `injected`):
how often a number is given, how often the interval holds the true share, and how often images of
a stated probability are contaminated.
`python -m tests.benchmarks.contamination RUN_FOLDER... [--simulated 400] [--json FILE]`
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from meds_plugin.metrics.contamination import Contamination, estimate_contamination
from meds_plugin.utils.rng import numpy_rng

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    Array = NDArray[Any]

BINS = (0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0)


class Judged(NamedTuple):
    """A set whose truth is known, and what was said of it."""

    kind: str
    truth: Array
    found: Contamination


def main() -> None:
    """Estimate, print the tables, write figures where asked."""
    options = _options()
    report = {}
    real = list(_judge(run_sets(options.folders)))
    made = list(_judge(simulated_sets(options.simulated)))
    for name, judged in (("runs", real), ("simulated", made)):
        if judged:
            report[name] = summary(judged)
            print(f"\n{name}\n{text(report[name])}")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def run_sets(folders: Iterable[Path]) -> Iterator[tuple[str, Array, Array]]:
    """Yield noise level, scores and truth of every category of every run at any depth."""
    files = sorted({file for folder in folders for file in folder.rglob("ranking.csv")})
    for file in files:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = [row for row in csv.DictReader(stream) if row["injected"]]
        for category in sorted({row["category"] for row in rows}):
            own = [row for row in rows if row["category"] == category]
            truth = np.array([row["injected"] == "1" for row in own])
            scores = np.array([float(row["score"]) for row in own])
            yield _bucket(truth.mean()), scores, truth


def simulated_sets(count: int) -> Iterator[tuple[str, Array, Array]]:
    """Yield sets of clean scores of several shapes and defects that stand out, some of them not."""
    for number in range(count):
        draw = numpy_rng(0, "contamination", number)
        images, share = int(draw.integers(25, 400)), float(draw.choice([0, 0.02, 0.05, 0.1, 0.3]))
        dirty = round(images * share)
        shape = ("gamma", "lognormal", "weibull", "normal", "t")[number % 5]
        clean = _clean(shape, images - dirty, draw)
        centre, spread = float(np.median(clean)), float(clean.std())
        apart = draw.uniform(1.0, 12.0)  # defects from subtle to glaring, in deviations
        defects = centre + spread * draw.gamma(2.0, apart / 2.0, dirty)
        truth = np.arange(images) >= images - dirty
        yield _bucket(truth.mean()), np.concatenate([clean, defects]), truth


def summary(judged: list[Judged]) -> dict[str, Any]:
    """Return coverage by noise level, and the calibration of the probabilities."""
    kinds = {
        kind: [one for one in judged if one.kind == kind]
        for kind in sorted({one.kind for one in judged})
    }
    result: dict[str, Any] = {
        name: _coverage(own) for name, own in {**kinds, "all": judged}.items()
    }
    known = [(one.found.probability, one.truth) for one in judged]
    pairs = [(chance, truth) for chance, truth in known if chance is not None]
    if pairs:
        chance = np.concatenate([pair[0] for pair in pairs])
        truth = np.concatenate([pair[1] for pair in pairs]).astype(float)
        result["brier"] = float(((chance - truth) ** 2).mean())
        result["brier_of_share"] = float(truth.mean() * (1 - truth.mean()))
        result["reliability"] = [
            {"from": low, "to": high, **_bin(chance, truth, low, high)}
            for low, high in pairwise(BINS)
        ]
    return result


def text(report: dict[str, Any]) -> str:
    """Lay a summary out as a table."""
    head = f"{'true share':>12}{'sets':>6}{'told':>6}{'covered':>9}{'missed above':>14}"
    lines = [f"{head}{'width':>7}{'estimate':>10}{'truth':>7}"]
    for name, row in report.items():
        if isinstance(row, dict):
            cells = [_cell(row[key]) for key in ("covered", "above", "width", "estimate", "truth")]
            lines.append(
                f"{name:>12}{row['sets']:>6}{row['told']:>6}{cells[0]:>9}{cells[1]:>14}"
                f"{cells[2]:>7}{cells[3]:>10}{cells[4]:>7}"
            )
    if "brier" in report:
        lines.append(
            f"probabilities: Brier {report['brier']:.4f} "
            f"(the set's share for every image: {report['brier_of_share']:.4f})"
        )
        lines += [
            f"  {row['from']:.2f} to {row['to']:.2f}: {row['images']:6} images, "
            f"said {_cell(row['said'])}, true {_cell(row['true'])}"
            for row in report["reliability"]
        ]
    return "\n".join(lines)


def _judge(sets: Iterable[tuple[str, Array, Array]]) -> Iterator[Judged]:
    for kind, scores, truth in sets:
        yield Judged(kind, truth, estimate_contamination(scores))


def _coverage(judged: list[Judged]) -> dict[str, Any]:
    said = [(float(one.truth.mean()), one.found) for one in judged]
    told = [
        (share, found.estimate, found.low, found.high)
        for share, found in said
        if found.estimate is not None and found.low is not None and found.high is not None
    ]
    return {
        "sets": len(judged),
        "told": len(told),
        "covered": _mean([float(low <= share <= high) for share, _, low, high in told]),
        "above": _mean([float(share > high) for share, _, _, high in told]),
        "width": _mean([high - low for _, _, low, high in told]),
        "estimate": _mean([estimate for _, estimate, _, _ in told]),
        "truth": _mean([share for share, _, _, _ in told]),
    }


def _bin(chance: Array, truth: Array, low: float, high: float) -> dict[str, Any]:
    inside = (chance >= low) & ((chance < high) | (high == 1.0))
    said, true = _mean(list(chance[inside])), _mean(list(truth[inside]))
    return {"images": int(inside.sum()), "said": said, "true": true}


def _clean(shape: str, count: int, draw: np.random.Generator) -> Array:
    return {
        "gamma": lambda: draw.gamma(draw.uniform(2, 12), size=count),
        "lognormal": lambda: draw.lognormal(0, draw.uniform(0.1, 0.5), count),
        "weibull": lambda: draw.weibull(draw.uniform(1.3, 3), count),
        "normal": lambda: draw.normal(5, 1, count),
        "t": lambda: 5 + draw.standard_t(8, count),
    }[shape]()


def _bucket(share: float) -> str:
    edges = {0.0: "0", 0.06: "to 0.06", 0.12: "to 0.12", 0.2: "to 0.20", 1.0: "above 0.20"}
    return next(name for edge, name in edges.items() if share <= edge)


def _mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folders", nargs="*", type=Path, help="run folders, at any depth")
    parser.add_argument("--simulated", type=int, default=400, help="sets to simulate")
    parser.add_argument("--json", type=Path, help="write the figures here")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""How much of the harm of contamination MeDS repairs, on photographs and synthetic images.

Runs a sweep for each data set, detector and variant, one after another; a stopped one goes on where
it was, and what is finished is only reported. The plain detector is always among the variants.
`python -m tests.benchmarks.won_back OUTPUT [--sets elpv,magnetic_tile] [--seeds 5] [--rows]
[--variant "k6=selection.k=6 method=meds"] [--report] [--figures FOLDER]`
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.runs.collection import find_runs
from meds_plugin.runs.read import read_rows
from meds_plugin.runs.tables import stage_ranking
from tests.benchmarks.common import show
from tests.benchmarks.won_back_figures import draw

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meds_plugin.runs.collection import Run

__all__ = ["Row", "main", "summary"]

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
_ELPV = find_spec("elpv_dataset")  # the package, where it is installed
_CELLS = Path(_ELPV.origin).parent / "data" if _ELPV and _ELPV.origin else "elpv_dataset/data"
SETS = {
    "elpv": ["data=csv", f"data.file={SHARED / 'elpv.csv'}", f"data.root={_CELLS}"],
    "magnetic_tile": ["data=mvtec", f"data.root={SHARED / 'magnetic_tile'}"],
    "photo_textures": ["data=mvtec", f"data.root={SHARED / 'photo_textures'}"],
    "synthetic": ["data=synthetic"],
}
PLAIN = "plain"
PAPER = ["method=meds", "experiment=paper_selection"]
ROWS = ("random_init", "memory", "distilled", "memory_selected")  # of the paper's ablation
STAGES = {"memory": "memory", "distilled": "distilled", "score": "final"}


class Row(NamedTuple):
    """One variant at one noise level: means over seeds, in [0, 1]; ``None``: not known.

    Attributes:
        variant: Its name.
        noise: The contamination asked for.
        seeds: Number of runs.
        image: Image AUROC.
        spread: Its standard deviation over seeds.
        pixel: Pixel AP.
        won_image: Share of the plain detector's loss of image AUROC that is won back.
        won_pixel: Likewise of pixel AP.
        kept: Share of the contaminated images that the last selection kept.
        left_out: Share of the clean images that it left out.
        ranking: AUPRC and inspection depth of the memory's, the distilled and the final scores.
        seconds: Duration of a run.
    """

    variant: str
    noise: float
    seeds: int
    image: float | None
    spread: float | None
    pixel: float | None
    won_image: float | None
    won_pixel: float | None
    kept: float | None
    left_out: float | None
    ranking: dict[str, tuple[float, float]]
    seconds: float


def main() -> None:
    """Run what is missing and print a table for each data set and detector."""
    options = _options()
    variants = {PLAIN: ["method=plain"]}
    if options.rows:
        variants |= {name: [f"method={name}"] for name in ROWS}
    variants |= {"paper": PAPER, "meds": ["method=meds"]}
    for given in options.variant:
        name, _, overrides = given.partition("=")
        variants[name] = overrides.split()
    rows, runs = {}, {}
    for name in options.sets.split(","):
        for backbone in options.backbones.split(","):
            found: dict[str, list[Run]] = {}
            for variant, overrides in variants.items():
                folder = options.output.resolve() / name / backbone / variant
                if not options.report:
                    _sweep(folder, [*SETS[name], f"backbone={backbone}", *overrides], options)
                if folder.is_dir():
                    found[variant] = find_runs(folder)[0]
            if found.get(PLAIN):
                rows[name, backbone], runs[name, backbone] = summary(found), found
                show(f"{name}, {backbone}", *_table(rows[name, backbone]))
    if options.figures:
        draw(options.figures, rows, runs)


def summary(runs: Mapping[str, Sequence[Run]]) -> list[Row]:
    """Summarise the runs of one data set and detector.

    Args:
        runs: Finished runs of each variant, among them those of the plain detector.
    """
    levels = sorted({run.noise or 0.0 for own in runs.values() for run in own})
    plain = {level: _at(runs[PLAIN], level) for level in levels}
    return [
        _row(variant, level, here, plain[0.0], plain[level])
        for variant, own in runs.items()
        for level in levels
        if (here := _at(own, level))
    ]


def _row(
    variant: str, noise: float, runs: Sequence[Run], clean: Sequence[Run], harmed: Sequence[Run]
) -> Row:
    def won(metric: str) -> float | None:
        best, worst, ours = (_mean(each, metric) for each in (clean, harmed, runs))
        if best is None or worst is None or ours is None or best <= worst:
            return None
        return (ours - worst) / (best - worst)

    rows = [read_rows(run.path / "ranking.csv") for run in runs]
    marked = [(r["selected"] == "1", r["injected"] == "1") for each in rows for r in each]
    ranking = {}
    for column, name in STAGES.items():
        pairs = [pair for run in runs if (pair := stage_ranking(run, column)) is not None]
        if pairs:
            found, depth = map(statistics.fmean, zip(*pairs, strict=True))
            ranking[name] = (found, depth)
    values = [value for run in runs if (value := run.metric("I-AUROC")) is not None]
    return Row(
        variant,
        noise,
        len(runs),
        _mean(runs, "I-AUROC"),
        statistics.stdev(values) if len(values) > 1 else None,
        _mean(runs, "P-AP"),
        won("I-AUROC"),
        won("P-AP"),
        _share(marked, lambda selected, contaminated: selected if contaminated else None),
        _share(marked, lambda selected, contaminated: None if contaminated else not selected),
        ranking,
        statistics.fmean(sum(run.metrics["seconds"].values()) for run in runs),
    )


def _share(
    marked: Sequence[tuple[bool, bool]], ask: Callable[[bool, bool], bool | None]
) -> float | None:
    answers = [answer for pair in marked if (answer := ask(*pair)) is not None]
    return sum(answers) / len(answers) if answers else None


def _at(runs: Sequence[Run], noise: float) -> list[Run]:
    return [run for run in runs if (run.noise or 0.0) == noise]


def _mean(runs: Sequence[Run], metric: str) -> float | None:
    values = [value for run in runs if (value := run.metric(metric)) is not None]
    return statistics.fmean(values) if values else None


def _table(rows: Sequence[Row]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    heads = ("variant", "noise", "seeds", "I-AUROC", "P-AP", "won I", "won P", "kept", "left out")
    stages = [f"{name} AUPRC/depth" for name in STAGES.values()]
    lines = []
    for row in rows:
        spread = "" if row.spread is None else f" ± {row.spread:.3f}"
        image = "-" if row.image is None else f"{row.image:.4f}{spread}"
        pixel = "-" if row.pixel is None else f"{row.pixel:.4f}"
        shares = [
            "-" if value is None else f"{value:.0%}"
            for value in (row.won_image, row.won_pixel, row.kept, row.left_out)
        ]
        ranks = [row.ranking.get(name) for name in STAGES.values()]
        ranked = ["-" if pair is None else f"{pair[0]:.3f}/{pair[1]:.0%}" for pair in ranks]
        facts = (row.variant, f"{row.noise:g}", str(row.seeds), image, pixel)
        lines.append((*facts, *shares, *ranked, f"{row.seconds:.0f}"))
    return (*heads, *stages, "s"), lines


def _sweep(folder: Path, overrides: Sequence[str], options: argparse.Namespace) -> None:
    seeds = ",".join(map(str, range(options.seeds)))
    command = [
        *(sys.executable, "-m", "meds_plugin.run", "-m", *overrides),
        *(f"noise={options.noise}", f"seed={seeds}", "review=false", "figures=false"),
        *(f"cache.dir={options.output.resolve() / 'cache'}", f"hydra.sweep.dir={folder}"),
    ]
    subprocess.run(command, check=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help="a folder for the runs")
    parser.add_argument("--sets", default=",".join(SETS), help=f"of {', '.join(SETS)}")
    parser.add_argument("--backbones", default="dinomaly,inp_former")
    parser.add_argument("--noise", default="0,0.1,0.2,0.4", help="levels, with 0 among them")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--variant", action="append", default=[], help="NAME=OVERRIDES of one more; repeatable"
    )
    parser.add_argument("--rows", action="store_true", help="the paper's other rows, too")
    parser.add_argument("--report", action="store_true", help="run nothing")
    parser.add_argument("--figures", type=Path, help="a folder to draw figures in")
    return parser.parse_args()


if __name__ == "__main__":
    main()

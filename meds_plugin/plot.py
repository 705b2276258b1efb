"""Draw the figures of a run or a sweep: ``python -m meds_plugin.plot RUN_OR_SWEEP``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.figures import draw_run, draw_sweep
from meds_plugin.figures.style import FORMATS
from meds_plugin.runs.collection import find_runs, partner, read_run
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meds_plugin.runs.collection import Run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    options = _parser().parse_args(arguments)
    try:
        for file in _draw(options):
            print(file)
    except UserError as error:
        print(f"meds_plugin: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _draw(options: argparse.Namespace) -> list[Path]:
    formats = options.format.split(",")
    if unknown := [name for name in formats if name not in FORMATS]:
        msg = f"--format {','.join(unknown)}: choose from {', '.join(FORMATS)}"
        raise UserError(msg)
    path: Path = options.path
    if (path / "metrics.json").is_file():
        run = read_run(path)
        files = draw_run(run, beside=_beside(run, options.beside), formats=formats)
    else:
        runs, _ = find_runs(path)
        files = draw_sweep(runs, path / "figures", formats=formats)
    if not files:
        msg = (
            f"{path}: there is nothing to draw (no scores, no two noise levels, no varied setting)"
        )
        raise UserError(msg)
    return files


def _beside(run: Run, given: Path | None) -> Run | None:
    """Return the run to draw beside another: the one given, or the plain one of its sweep."""
    if given is not None:
        other = read_run(given)
        if partner(run, [other], method=other.method) is None:
            msg = f"--beside {given}: data, noise, seed or settings are not {run.path}'s"
            raise UserError(msg)
        return other
    folders = sorted(file.parent for file in run.path.resolve().parent.glob("*/metrics.json"))
    others = [read_run(folder) for folder in folders if (folder / "config.yaml").is_file()]
    return None if run.method == "plain" else partner(run, others)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m meds_plugin.plot", description="Draw the figures of a run or a sweep."
    )
    parser.add_argument("path", type=Path, help="folder of a run, or of a sweep")
    parser.add_argument("--beside", type=Path, help="the plain run to draw beside a run")
    parser.add_argument("--format", default="png", help="png, svg, pdf, or several with commas")
    return parser


if __name__ == "__main__":
    main()

"""Draw the figures of a run or a sweep: ``python -m meds_plugin.plot PATH``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from meds_plugin.config.command_line import Options, run_command
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from meds_plugin.runs.collection import Run

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    sys.exit(run_command("plot", _plot, arguments, positional="path"))


def _plot(options: Options) -> None:
    path, beside = options.path("path"), options.optional_path("beside")
    formats = options.choices("format", ("png", "svg", "pdf"))
    theorem1 = options.flag("theorem1")
    # Heavy imports come late: a wrong option is answered at once.
    from meds_plugin.figures import draw_run, draw_sweep
    from meds_plugin.runs.collection import find_runs, read_run

    if (path / "metrics.json").is_file():
        run = read_run(path)
        if run.metrics["cut_short"]:
            print(f"warning: {path}: {run.metrics['cut_short']}", file=sys.stderr)
        if theorem1:
            from meds_plugin.figures.gap import compute_gap

            compute_gap(path, device=options.text("device"), trust=options.flag("trust"))
        files = draw_run(run, beside=_beside(run, beside), formats=formats)
    else:
        runs, unfinished = find_runs(path)
        for left_out, why in unfinished.items():
            print(f"left out: {left_out}: {why}", file=sys.stderr)
        files = draw_sweep(runs, path / "figures", formats=formats)
    if not files:
        msg = (
            f"{path}: there is nothing to draw (no scores, no two noise levels, no varied setting)"
        )
        raise UserError(msg)
    print(*files, sep="\n")


def _beside(run: Run, given: Path | None) -> Run | None:
    """Return the run to draw beside another: the one given, or the plain one of its sweep."""
    from meds_plugin.runs.collection import partner, read_run

    if given is not None:
        other = read_run(given)
        if partner(run, [other], method=other.method) is None:
            msg = f"beside={given}: data, noise, seed or settings differ from {run.path}'s"
            raise UserError(msg)
        return other
    folders = sorted(file.parent for file in run.path.resolve().parent.glob("*/metrics.json"))
    others = [read_run(folder) for folder in folders if (folder / "config.yaml").is_file()]
    return None if run.method == "plain" else partner(run, others)


if __name__ == "__main__":
    main()

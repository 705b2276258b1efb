"""``python -m meds_plugin.review RUN``: the page of a run, and the way back from its decisions."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from meds_plugin.review import rebuild_review
from meds_plugin.review.rounds import apply_decisions, compare_runs
from meds_plugin.utils.errors import UserError

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    """Answers wrong arguments in one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see python -m meds_plugin.review --help")  # noqa: EM102, TRY003


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Default: those of the process.

    Returns:
        The exit status: 0, or 2 with one line where the input is wrong.
    """
    parser = _Parser(prog="python -m meds_plugin.review", description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--apply", type=Path, metavar="FILE", help="decisions.csv, from the page")
    what.add_argument("--compare", type=Path, metavar="RUN2", help="run without dropped images")
    parser.add_argument("--output", type=Path, metavar="FILE", help="list that --apply writes")
    try:
        given = parser.parse_args(arguments)
        if given.output is not None and given.apply is None:
            parser.error("--output goes with --apply")
        _answer(given)
    except UserError as error:
        print(f"meds_plugin: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _answer(given: argparse.Namespace) -> None:
    if given.compare is not None:
        print(compare_runs(given.run, given.compare))
    elif given.apply is not None:
        applied = apply_decisions(given.run, given.apply, output=given.output)
        earlier = f", {applied.before} more by an earlier review" if applied.before else ""
        print(f"{applied.file} leaves out {applied.dropped} images{earlier}. To train again:")
        print(applied.command)
        print("To see the metrics of both runs afterwards:")
        runs = (str(given.run), "--compare", str(applied.target))
        print(shlex.join(["python", "-m", "meds_plugin.review", *runs]))
    else:
        page = rebuild_review(given.run)
        print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())

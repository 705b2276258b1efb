"""``python -m meds_plugin.review RUN``: the page of a run, and the way back from its decisions."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from meds_plugin.config.command_line import Options, run_command
from meds_plugin.utils.errors import UserError, require
from meds_plugin.utils.values import is_number

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    sys.exit(run_command("review", _review, arguments, positional="run"))


def _review(options: Options) -> None:
    run, output = options.path("run"), options.optional_path("output")
    decisions, other = options.optional_path("apply"), options.optional_path("compare")
    updates, at_most = options.optional_path("update"), options.value("at_most")
    given = [key for key in ("apply", "compare", "update") if options.optional(key)]
    if len(given) > 1:
        msg = f"{' and '.join(given)} do not go together: give one of them"
        raise UserError(msg)
    require(is_number(at_most) and 0 <= at_most < 1, "at_most", "a share in [0, 1)", at_most)
    if output and not decisions:
        msg = "output goes with apply only: give apply=decisions.csv, or leave out output"
        raise UserError(msg)
    # Heavy imports come late: a wrong option is answered at once.
    from meds_plugin.review.build import rebuild_review
    from meds_plugin.review.comparison import compare_runs
    from meds_plugin.review.decisions import apply_decisions
    from meds_plugin.review.update import report, update_review

    if updates:
        updated = update_review(run, updates, at_most=at_most)
        print("\n".join(report(updated, at_most)))
        print(f"{updated.page} has the new order; import {updated.file} there for the decisions")
    elif other:
        print(compare_runs(run, other))
    elif decisions:
        applied = apply_decisions(run, decisions, output=output)
        earlier = f", {applied.before} more by an earlier review" if applied.before else ""
        print(f"{applied.file} leaves out {applied.dropped} images{earlier}. To train again:")
        print(applied.command)
        print("To see the metrics of both runs afterwards:")
        runs = (str(run), "--compare", str(applied.target))
        print(shlex.join(["python", "-m", "meds_plugin.review", *runs]))
    else:
        page = rebuild_review(run)
        print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()

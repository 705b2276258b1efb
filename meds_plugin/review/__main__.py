"""``python -m meds_plugin.review RUN``: the page of a run, and the way back from its decisions."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from meds_plugin.config.command_line import Options, run_command
from meds_plugin.utils.errors import UserError, require
from meds_plugin.utils.text import counted, first_few
from meds_plugin.utils.values import is_number

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from meds_plugin.review.quarantine.manifest import How

__all__ = ["main"]

_PATHS = (
    "apply",
    "compare",
    "export",
    "import",
    "restore",
    "update",
    "output",
    "decisions",
    "quarantine",
)
# Options that go with some others only.
_NEEDS = {
    "output": ("apply", "export", "import", "merge"),
    "decisions": ("export",),
    "quarantine": ("apply",),
    "link": ("quarantine",),
    "move": ("quarantine",),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    sys.exit(run_command("review", _review, arguments, positional="run"))


# Heavy imports come late: a wrong option is answered at once.
def _review(options: Options) -> None:
    run, given = options.path("run"), _given(options)
    commands = {
        "apply": _quarantine if "quarantine" in given else _apply,
        "compare": _compare,
        "export": _export,
        "import": _import,
        "merge": _merge,
        "restore": _restore,
        "update": _update,
    }
    chosen = [key for key in commands if key in given]
    if len(chosen) > 1:
        msg = f"{' and '.join(chosen)} cannot be combined: give one of them"
        raise UserError(msg)
    for key, needed in _NEEDS.items():
        if key in given and not given & set(needed):
            msg = f"{key} goes with {', '.join(needed)} only: give one of these, or leave out {key}"
            raise UserError(msg)
    (commands[chosen[0]] if chosen else _build)(run, options)


def _given(options: Options) -> set[str]:
    given = {key for key in _PATHS if options.optional(key)}
    given |= {key for key in ("link", "move") if options.flag(key)}
    return given | ({"merge"} if options.paths("merge") else set())


def _build(run: Path, _: Options) -> None:
    from meds_plugin.review.build import rebuild_review

    page = rebuild_review(run)
    print(f"{page} ({page.stat().st_size / 1e6:.1f} MB)")


def _compare(run: Path, options: Options) -> None:
    from meds_plugin.review.comparison import compare_runs

    print(compare_runs(run, options.path("compare")))


def _apply(run: Path, options: Options) -> None:
    from meds_plugin.review.decisions import apply_decisions

    applied = apply_decisions(run, options.path("apply"), output=options.optional_path("output"))
    earlier = f", {applied.before} more by an earlier review" if applied.before else ""
    print(
        f"{applied.file} leaves out {counted(applied.dropped, 'image')}{earlier}. To train again:"
    )
    print(applied.command)
    print("To see the metrics of both runs afterwards:")
    print(_command(run, "--compare", applied.target))


def _quarantine(run: Path, options: Options) -> None:
    from meds_plugin.review.quarantine.fill import quarantine

    if options.flag("link") and options.flag("move"):
        msg = "link and move cannot be combined: give one of them"
        raise UserError(msg)
    how: How = "move" if options.flag("move") else "link" if options.flag("link") else "copy"
    folder = options.path("quarantine")
    done = quarantine(run, options.path("apply"), folder, how)
    _named(done.left, "not moved because they are also test images")
    if not done.files:
        print("no file is left to move")
        return
    what = {"copy": "copied into", "link": "linked from", "move": "moved into"}[how]
    print(f"{what} {folder}, and listed in its manifest.csv: {done.files}")
    if how == "move":
        print(f"To move them back:\n{_command(run, '--restore', folder)}")


def _restore(run: Path, options: Options) -> None:
    from meds_plugin.review.quarantine.restore import restore

    print(f"moved back: {restore(run, options.path('restore'))}")


def _export(run: Path, options: Options) -> None:
    from meds_plugin.review.exchange.export import FORMATS, export_images

    kind = options.choices("export", FORMATS)[0]
    output = options.optional_path("output")
    done = export_images(run, kind, decisions=options.optional_path("decisions"), output=output)
    entries = done.entries.entries
    _named(done.entries.gone, "left out because they cannot be read")
    if not done.entries.mapped:
        print("the run stored no heatmaps: there are no boxes")
    boxes = sum(len(entry.regions) for entry in entries)
    print(f"{', '.join(map(str, done.files))}: {len(entries)} images, {boxes} boxes")
    print(f"to use: {done.advice}")


def _import(run: Path, options: Options) -> None:
    from meds_plugin.review.exchange.answers import import_decisions

    done = import_decisions(run, options.path("import"), output=options.optional_path("output"))
    _named(done.unknown, "left out because they are not of this run")
    _named(done.missing, "without a decision")
    _named(done.conflicts, "decided both ways, so left undecided")
    print(f"decisions in {done.file}: {done.decided}. To apply them:")
    print(_command(run, "--apply", done.file))


def _merge(run: Path, options: Options) -> None:
    from meds_plugin.review.merge import merge_decisions

    done = merge_decisions(run, options.paths("merge"), output=options.optional_path("output"))
    agreed = done.dropped + done.kept
    share = f" ({agreed / done.shared:.0%})" if done.shared else ""
    print(
        f"{done.shared} images were decided more than once: {agreed} agree{share}, "
        f"{done.dropped} drop and {done.kept} keep"
    )
    _named(done.conflicts, f"conflicts, left undecided and listed in {done.table}")
    print(f"decisions in {done.file}: {done.decided}. To apply them:")
    print(_command(run, "--apply", done.file))
    if done.table:
        print("To settle the conflicts first, fill in the column decision of their list, then:")
        print(_command(run, "--merge", done.file, done.table))


def _command(run: Path, *words: object) -> str:
    return shlex.join(["python", "-m", "meds_plugin.review", str(run), *map(str, words)])


def _update(run: Path, options: Options) -> None:
    from meds_plugin.review.update import report, update_review

    at_most = options.value("at_most")
    require(is_number(at_most) and 0 <= at_most < 1, "at_most", "a share in [0, 1)", at_most)
    updated = update_review(run, options.path("update"), at_most=at_most)
    print("\n".join(report(updated, at_most)))
    print(f"{updated.page} has the new order; import {updated.file} there for the decisions")


def _named(names: Sequence[str], what: str) -> None:
    """Print what some images have in common, with the first few names."""
    if names:
        from meds_plugin.data.faults import shown

        print(f"{what} ({len(names)}): {first_few([shown(name) for name in names])}")


if __name__ == "__main__":
    main()

"""Collect a sweep into the paper's tables: ``python -m meds_plugin.table PATH``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from meds_plugin.config.command_line import Options, run_command

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_SUFFIXES = {"md": "md", "csv": "csv", "latex": "tex"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    sys.exit(run_command("table", _collect, arguments, positional="path"))


def _collect(options: Options) -> None:
    path, formats = options.path("path"), options.choices("format", _SUFFIXES)
    folder = options.optional_path("output") or path
    # Heavy imports come late: a wrong option is answered at once.
    from meds_plugin.runs.collection import find_runs
    from meds_plugin.runs.tables import build_tables, csv_table, latex, markdown
    from meds_plugin.utils.atomic import write_text

    runs, unfinished = find_runs(path)
    tables = build_tables(runs)
    missing = [f"missing: {run}: {why}" for run, why in unfinished.items()]
    texts = {
        "md": "\n".join([*map(markdown, tables), *(f"{line}  " for line in missing), ""]),
        "csv": csv_table(tables),
        "latex": "\n".join([*map(latex, tables), *(f"% {line}" for line in missing), ""]),
    }
    print(texts[formats[0]])
    for name in formats:
        file = folder / f"table.{_SUFFIXES[name]}"
        write_text(file, texts[name])
        print(file, file=sys.stderr)


if __name__ == "__main__":
    main()

"""Collect a sweep into the paper's tables: ``python -m meds_plugin.table SWEEP``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from meds_plugin.runs.collection import find_runs
from meds_plugin.runs.tables import build_tables, csv_table, latex, markdown
from meds_plugin.utils.atomic import write_text
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_FORMATS = {"md": "md", "csv": "csv", "latex": "tex"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends with status 2 and one line where the input is wrong."""
    options = _parser().parse_args(arguments)
    try:
        _collect(options)
    except UserError as error:
        print(f"meds_plugin: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


def _collect(options: argparse.Namespace) -> None:
    formats = options.format.split(",")
    if unknown := [name for name in formats if name not in _FORMATS]:
        msg = f"--format {','.join(unknown)}: choose from {', '.join(_FORMATS)}"
        raise UserError(msg)
    runs, unfinished = find_runs(options.path)
    tables = build_tables(runs)
    missing = [f"missing: {path}: not finished" for path in unfinished]
    texts = {
        "md": "\n".join([*map(markdown, tables), *(f"{line}  " for line in missing), ""]),
        "csv": csv_table(tables),
        "latex": "\n".join([*map(latex, tables), *(f"% {line}" for line in missing), ""]),
    }
    print(texts[formats[0]])
    folder: Path = options.output or options.path
    for name in formats:
        file = folder / f"table.{_FORMATS[name]}"
        write_text(file, texts[name])
        print(file, file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m meds_plugin.table",
        description="Collect the runs of a sweep, at any depth, into the paper's tables.",
    )
    parser.add_argument("path", type=Path, help="folder of the sweep")
    parser.add_argument(
        "--format", default="md,csv,latex", help="md, csv, latex, or several with commas"
    )
    parser.add_argument("--output", type=Path, help="folder for the tables; default: the sweep's")
    return parser


if __name__ == "__main__":
    main()

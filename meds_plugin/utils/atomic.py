"""Files that are either whole or not there: written beside, then renamed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = [
    "csv_text",
    "replacing",
    "write_arrays",
    "write_bytes",
    "write_csv",
    "write_json",
    "write_text",
]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which takes the place of another when the block ends well.

    Args:
        path: The other file; what is there stays there until then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays without objects as a compressed npz file, atomically."""
    content = io.BytesIO()
    named: Any = dict(arrays)
    np.savez_compressed(content, **named)
    write_bytes(path, content.getvalue())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically; refuses NaN and infinity, which are no JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically (see `csv_text`)."""
    write_text(path, csv_text(fields, rows))


def csv_text(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a CSV table with a header; ``None`` becomes an empty field."""
    table = _Lines()
    # The end of a line, as csv is told it, decides what is quoted: names may hold either half.
    writer = csv.DictWriter(table, fieldnames=list(fields), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in table.lines)


class _Lines:
    """What csv writes into: it gives a row at a time."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def write(self, line: str) -> None:
        """Take a row."""
        self.lines.append(line)

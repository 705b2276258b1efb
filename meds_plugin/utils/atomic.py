"""Atomic writing of files: written under another name, then renamed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from types import SimpleNamespace
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
    """Provide the name of a file to write, which replaces another when the block succeeds.

    Args:
        path: The file to replace; unchanged until then.
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
    """Write a JSON file atomically; raises ValueError for NaN and infinity, which are no JSON."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_csv(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically (see `csv_text`)."""
    write_text(path, csv_text(fields, rows))


def csv_text(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a CSV table with a header; ``None`` becomes an empty field."""
    lines: list[str] = []
    file: Any = SimpleNamespace(write=lines.append)  # gets one row at a time
    # csv quotes fields with characters of the line terminator, and names may contain either.
    writer = csv.DictWriter(file, fieldnames=list(fields), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(line.removesuffix("\r\n") + "\n" for line in lines)

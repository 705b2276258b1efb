"""Puts every key of ``conf`` into the page of settings, with its default and its comment."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Key", "all_keys", "on_page_markdown", "read_keys"]

_CONF = Path(__file__).resolve().parents[1] / "conf"
_MARK = "<!-- all keys -->"
_FOLDERS = {
    "": "Commands",
    "data": "`data=`",
    "backbone": "`backbone=`",
    "encoder": "`encoder=`",
    "experiment": "`experiment=`",
    "trainer": "`trainer.`",
    "logger": "`logger=`",
    "hydra/launcher": "`hydra/launcher=`",
}


@dataclass
class Key:
    """A key of a configuration file.

    Attributes:
        name: With dots, as on the command line.
        default: As it is written; empty for a section.
        comments: Those beside it and above it.
    """

    name: str
    default: str = ""
    comments: list[str] = field(default_factory=list)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Answer MkDocs with a page's text, the keys in place of the mark."""
    return markdown.replace(_MARK, all_keys(_CONF)) if _MARK in markdown else markdown


def all_keys(conf: Path) -> str:
    """Return headings and tables of all files in ``conf``.

    A key without a comment has that of the first file with the key: those that override it come
    later.
    """
    parts, known = [], dict[str, list[str]]()
    for folder, title in _FOLDERS.items():
        parts.append(f"### {title}\n")
        for file in sorted((conf / folder).glob("*.yaml"), key=_order):
            header, keys = read_keys(file, folder)
            for key in keys:
                key.comments = key.comments or known.get(key.name, [])
                known.setdefault(key.name, key.comments)
            name = f"conf/{file.relative_to(conf).as_posix()}"
            parts.append(f"#### `{name}`\n\n{_intro(header)}\n\n{_table(keys)}\n")
    return "\n".join(parts)


def read_keys(file: Path, folder: str) -> tuple[list[str], list[Key]]:
    """Read a configuration file.

    Args:
        file: YAML.
        folder: Of it below ``conf``, which the names of its keys begin with.

    Returns:
        The comment at its top, line by line, and its keys.
    """
    text = file.read_text(encoding="utf-8")
    lines = text.splitlines()
    top = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    header = [line.strip("# ") for line in lines[:top] if "@package" not in line]
    # The files of this folder without a package of their own are at its place.
    whole = folder in {"", "experiment", "encoder"} or "@package _global_" in text
    prefix = "" if whole else folder.replace("/", ".") + "."
    return header, list(_walk(yaml.compose(text), prefix, [""] * top + lines[top:]))


def _walk(node: yaml.Node, prefix: str, lines: list[str]) -> Iterator[Key]:
    for key, value in node.value:
        name = prefix + key.value
        # Nobody sets what only Hydra reads.
        if key.value.startswith("_") or key.value == "defaults" or name == "hydra.help":
            continue
        begin, end = key.start_mark.line, value.end_mark
        section = isinstance(value, yaml.MappingNode) and value.value
        beside = lines[begin][key.end_mark.column + 1 :] if section else ""
        if not section and end.line < len(lines):
            beside = lines[end.line][end.column :] if end.line == value.start_mark.line else ""
        comments = [*_above(lines, begin), *re.findall(r"^\s*#\s*(.*)$", beside)]
        if not section:
            comments += _below(lines, begin)
        if section:
            if comments:
                yield Key(f"{name}.*", "", comments)
            yield from _walk(value, f"{name}.", lines)
        else:
            yield Key(name, _written(value), comments)


def _above(lines: list[str], line: int) -> list[str]:
    """Return the comment lines right above a line, at its depth."""
    found: list[str] = []
    while line > 0 and re.match(rf"^ {{{_depth(lines[line])}}}# ", lines[line - 1]):
        line -= 1
        found.insert(0, lines[line].strip("# "))
    return found


def _below(lines: list[str], line: int) -> list[str]:
    """Return the comment lines after the last key of a section."""
    end = line + 1
    while end < len(lines) and re.match(rf"^ {{{_depth(lines[line])}}}# ", lines[end]):
        end += 1
    last = end == len(lines) or _depth(lines[end]) < _depth(lines[line])
    return [text.strip("# ") for text in lines[line + 1 : end]] if last else []


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _written(value: yaml.Node) -> str:
    raw = value.start_mark.buffer[value.start_mark.pointer : value.end_mark.pointer]
    return " ".join(raw.replace("\0", "").split())


def _order(file: Path) -> tuple[bool, bool, str]:
    return file.name != "config.yaml", not file.name.startswith("_"), file.name


def _intro(header: list[str]) -> str:
    text = ""
    for line in header:
        text += f"\n\n`{line}`\n\n" if line.startswith("python -m") else f"{line} "
    return text.strip()


def _table(keys: list[Key]) -> str:
    if not keys:
        return ""
    rows = ["| key | default | |", "|---|---|---|"]
    for key in keys:
        default = f"`{key.default}`" if key.default else ""
        comment = html.escape(" ".join(key.comments), quote=False)
        cells = (f"`{key.name}`", default.replace("|", "\\|"), comment.replace("|", "\\|"))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)

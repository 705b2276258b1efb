"""Reads Real-IAD, whose JSON files list images by category and camera view: `data=real_iad`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import folders_in, is_folder, natural_key
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.layout_guess import guess_layout, wrong_layout
from meds_plugin.data.readers.listed_images import (
    EntryError,
    add_category,
    listed_file,
    mark_injected,
)
from meds_plugin.data.readers.safe_paths import is_plain_name
from meds_plugin.data.samples import Problem, Sample, Split
from meds_plugin.data.words import Meaning, doubt, is_missing, meaning, word_key
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["read_real_iad"]

_LAYOUT = "realiad_1024/CATEGORY/* and realiad_jsons/realiad_jsons/CATEGORY.json"
_PREFERRED = "realiad_1024"
_VIEW = re.compile(r"_(C[1-5])(?=[_.])")
_KINDS: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}


class _Entry(NamedTuple):
    where: str
    image: str
    mask: str | None
    label: str
    defect: str | None


class _Listing(NamedTuple):
    prefix: str
    train: list[_Entry]
    test: list[_Entry]


def read_real_iad(
    root: str | os.PathLike[str] | None,
    categories: Sequence[str] | str | None = None,
    *,
    variant: str = "realiad_jsons",
    images: str | None = None,
) -> Split:
    """List Real-IAD's images, ``<root>/<images>/<category>/<path as the JSON has it>``.

    The lists are ``<root>/realiad_jsons/<variant>/<category>.json``, or without ``realiad_jsons``.
    Images are not opened.

    Args:
        root: The data set's folder.
        categories: Which to read, in any order; ``None``: all that have images.
        variant: Which lists: ``realiad_jsons`` is the standard split, ``realiad_jsons_fuiad_0.4``
            lists defective images for training.
        images: The folder of images, if there are several sizes; ``None``: ``realiad_1024``, or
            else the only one.

    Returns:
        The images by category and name, each with its ``view``, C1 to C5, from the file name. If
        the variant may list defective images for training, ``injected`` tells them from the normal
        ones. Entries whose file is missing, leads out of its folder or is listed twice are among
        the problems.

    Raises:
        UserError: If the folder has another layout, a list is malformed, or a category or all its
            training images are missing.
    """
    folder = data_folder(root, _LAYOUT)
    tables = _tables(folder, variant)
    image_folder = _image_folder(folder, images)
    split = Split(train=[], test=[], folders=(folder,))
    for name in chosen_categories(categories, tables, f"data.root={folder}"):
        listing = _parsed(tables[name], name)
        base = image_folder / listing.prefix
        if is_folder(base):
            _add_listed(split, folder, base, name, listing, tables[name])
        elif categories is None:
            split.notes.append(f"category {name}: no folder {base}: left out")
        else:
            msg = f"category {name}: {base} does not exist; leave it out of data.categories"
            raise UserError(msg)
    if not (split.train or split.problems):
        msg = f"{image_folder} has no folder of a category listed in {variant}; check data.images"
        raise UserError(msg)
    mark_injected(split, variant, always="_fuiad_" in variant)
    if categories is None:
        unlisted = [path.name for path in folders_in(image_folder) if path.name not in tables]
        split.notes.extend(f"category {n}: not listed in {variant}: left out" for n in unlisted)
    return split


def _tables(root: Path, variant: str) -> dict[str, Path]:
    """Return the variant's lists by category."""
    found = {
        path.name: lists
        # Outer folders first: the inner one of the same name, the official place, replaces it.
        for path in (*folders_in(root), *folders_in(root / "realiad_jsons"))
        if (lists := {p.stem: p for p in path.glob("*.json") if not p.name.startswith(".")})
    }
    if variant in found:
        return found[variant]
    if not found or guess_layout(root) != "real_iad":
        raise UserError(wrong_layout(root, "real_iad", _LAYOUT))
    there = ", ".join(sorted(found, key=natural_key))
    msg = f"data.variant={variant} is not in data.root={root}; there are: {there}"
    raise UserError(msg)


def _image_folder(root: Path, images: str | None) -> Path:
    there = [
        path.name
        for path in folders_in(root)
        if path.name.startswith("realiad_") and not path.name.startswith("realiad_jsons")
    ]
    chosen = images or (there[0] if len(there) == 1 else _PREFERRED)
    if is_plain_name(chosen) and is_folder(root / chosen):
        return root / chosen
    if images:
        msg = f"data.images={images} is not a folder in data.root={root}"
    elif there:
        msg = f"data.root={root} has images of several sizes; name one: data.images={there[0]}"
    else:
        msg = f"data.root={root} has no folder of images such as {_PREFERRED}; add one"
    raise UserError(f"{msg}; there are: {', '.join(there)}" if there else msg)


def _add_listed(
    split: Split, root: Path, base: Path, name: str, listing: _Listing, table: Path
) -> None:
    train, test = (
        [(entry.where, _sample(root, base, name, entry)) for entry in entries]
        for entries in (listing.train, listing.test)
    )
    add_category(split, name, table, train, test)
    views = [sample.view for sample in [*split.train, *split.test] if sample.category == name]
    if blind := views.count(None):
        count = f"{blind} of {len(views)} images"
        split.notes.append(f"category {name}: {count} have no view _C1_ to _C5_ in their file name")


def _sample(root: Path, base: Path, category: str, entry: _Entry) -> Sample | Problem:
    above = base.relative_to(root).as_posix()
    try:
        image = listed_file(base, entry.image)
        mask = base / listed_file(base, entry.mask) if entry.defect and entry.mask else None
    except EntryError as error:
        return Problem(f"{above}/{entry.image}", f"{entry.where}: {error}")
    # The last match: a category's name may contain one, and comes before the view.
    views = _VIEW.findall(image.name)
    view = views[-1] if views else None
    name = f"{above}/{image}"
    return Sample(name, category, entry.defect, base / image, mask, view=view, label=entry.label)


def _parsed(table: Path, category: str) -> _Listing:
    """Read a list.

    Raises:
        UserError: If it is not in the official format; the message names the key.
    """
    try:
        content = json.loads(table.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        msg = f"{table} cannot be read as JSON ({error}); download it again"
        raise UserError(msg) from error
    _require(table, "the file", dict, content)
    meta = _require(table, "meta", dict, content.get("meta", {}))
    normal = None  # the usual words
    if "normal_class" in meta:
        normal = _require(table, "meta.normal_class", str, meta["normal_class"])
    prefix = _require(table, "meta.prefix", str, meta.get("prefix", category)).strip("/")
    if not is_plain_name(prefix):
        msg = f"{table}: meta.prefix must name a folder of images, got {shown(prefix)!r}; fix it"
        raise UserError(msg)
    parts = [
        [
            _entry(table, item, f"{part}[{index}]", normal)
            for index, item in enumerate(_require(table, part, list, content.get(part)))
        ]
        for part in ("train", "test")
    ]
    kinds = [entry.label for entries in parts for entry in entries]
    if normal is None and (why := doubt(kinds, of_defect=True)):
        msg = f"{table}: anomaly_class: {why}; name the one for normal in meta.normal_class"
        raise UserError(msg)
    return _Listing(prefix, *parts)


def _entry(table: Path, item: Any, where: str, normal: str | None) -> _Entry:
    _require(table, where, dict, item)
    image = _require(table, f"{where}.image_path", str, item.get("image_path"))
    kind = _require(table, f"{where}.anomaly_class", str, item.get("anomaly_class"))
    if mask := item.get("mask_path"):
        _require(table, f"{where}.mask_path", str, mask)
    mask = None if is_missing(mask or "") else mask
    if normal is None:
        is_normal = meaning(kind, of_defect=True) is Meaning.NORMAL
    else:
        is_normal = word_key(kind) == word_key(normal)
    return _Entry(f"{table.name} {where}", image, mask, kind, None if is_normal else kind)


def _require(table: Path, key: str, kind: type, value: Any) -> Any:
    """Return a value of the right type."""
    if isinstance(value, kind) and value != "":
        return value
    got = "nothing" if value is None else json.dumps(value)
    got = got if len(got) <= 40 else f"{got[:37]}..."
    msg = f"{table}: {key} must be {_KINDS[kind]}, got {got}; fix it or download the file again"
    raise UserError(msg)

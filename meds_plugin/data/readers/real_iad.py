"""Reads Real-IAD, whose JSON files list images by category and camera view: `data=real_iad`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import folders_in, is_folder, natural_key
from meds_plugin.data.readers.arguments import chosen_categories, data_folder
from meds_plugin.data.readers.by_category import category_notes
from meds_plugin.data.readers.layout_guess import guess_layout, wrong_layout
from meds_plugin.data.readers.listed_images import (
    EntryError,
    listed_file,
    mark_injected,
    usable_samples,
)
from meds_plugin.data.readers.safe_paths import is_plain_name
from meds_plugin.data.samples import Problem, Sample, Split
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence
    from pathlib import Path

__all__ = ["read_real_iad"]

_LAYOUT = "realiad_1024/CATEGORY/* and realiad_jsons/realiad_jsons/CATEGORY.json"
_PREFERRED = "realiad_1024"
_VIEW = re.compile(r"_(C[1-5])(?=[_.])")
_KINDS: dict[type, str] = {str: "a text", list: "a list", dict: "an object"}


class _Entry(NamedTuple):
    image: str
    mask: str | None
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
    for name in chosen_categories(categories, tables, folder):
        listing = _parsed(tables[name], name)
        base = image_folder / listing.prefix
        if is_folder(base):
            _add_category(split, folder, base, name, listing, tables[name])
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
    if images is not None:
        if is_plain_name(images) and is_folder(root / images):
            return root / images
        msg = f"data.images={images} is not a folder in data.root={root}"
    elif _PREFERRED in there:
        return root / _PREFERRED
    elif len(there) == 1:
        return root / there[0]
    elif there:
        msg = f"data.root={root} has images of several sizes; name one: data.images={there[0]}"
    else:
        msg = f"data.root={root} has no folder of images such as {_PREFERRED}; add one"
    raise UserError(f"{msg}; there are: {', '.join(there)}" if there else msg)


def _add_category(
    split: Split, root: Path, base: Path, name: str, listing: _Listing, table: Path
) -> None:
    if not listing.train:
        msg = f"category {name}: {table} lists no training images; leave it out of data.categories"
        raise UserError(msg)

    def results(part: str, entries: list[_Entry]) -> Iterator[tuple[str, Sample | Problem]]:
        for index, entry in enumerate(entries):
            where = f"{table.name} {part}[{index}]"
            yield where, _sample(root, base, name, entry, where)

    train, test = (
        usable_samples(results(part, entries), split.problems, by=lambda sample: sample.path)
        for part, entries in (("train", listing.train), ("test", listing.test))
    )
    split.train.extend(train)
    split.test.extend(test)
    split.notes.extend(category_notes(name, test, "masks"))
    blind = sum(sample.view is None for sample in [*train, *test])
    if blind:
        count = f"{blind} of {len(train) + len(test)} images"
        split.notes.append(f"category {name}: {count} have no view _C1_ to _C5_ in their file name")


def _sample(root: Path, base: Path, category: str, entry: _Entry, where: str) -> Sample | Problem:
    try:
        path, image = listed_file(root, base, entry.image)
        mask = listed_file(root, base, entry.mask)[1] if entry.defect and entry.mask else None
    except EntryError as error:
        path = f"{base.relative_to(root).as_posix()}/{entry.image}"
        return Problem(path, f"{where}: {error}; fix the entry or take it out")
    # The last match: a category's name may contain one, and comes before the view.
    views = _VIEW.findall(image.name)
    view = views[-1] if views else None
    return Sample(path, category, entry.defect, image, mask, view=view)


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
    if not isinstance(content, dict):
        _refuse(table, "the file", dict, content)
    meta = _value(table, content, "meta", dict, {})
    normal = _value(table, meta, "normal_class", str, "OK", within="meta.")
    prefix = _value(table, meta, "prefix", str, category, within="meta.").strip("/")
    if not is_plain_name(prefix):
        msg = f"{table}: meta.prefix must name a folder of images, got {shown(prefix)!r}; fix it"
        raise UserError(msg)
    parts = [
        [
            _entry(table, item, f"{part}[{index}]", normal)
            for index, item in enumerate(_value(table, content, part, list))
        ]
        for part in ("train", "test")
    ]
    return _Listing(prefix, *parts)


def _entry(table: Path, item: object, where: str, normal: str) -> _Entry:
    if not isinstance(item, dict):
        _refuse(table, where, dict, item)
    image = _value(table, item, "image_path", str, within=f"{where}.")
    kind = _value(table, item, "anomaly_class", str, within=f"{where}.")
    mask = item.get("mask_path")
    if mask is not None and not isinstance(mask, str):
        _refuse(table, f"{where}.mask_path", str, mask)
    return _Entry(image, mask or None, None if kind == normal else kind)


def _value(
    table: Path,
    content: dict[str, Any],
    key: str,
    kind: type,
    default: Any = None,
    within: str = "",
) -> Any:
    """Return a value of the right type; the default, if any, where the key is missing."""
    value = content.get(key, default)
    if not isinstance(value, kind) or value == "":
        _refuse(table, within + key, kind, value)
    return value


def _refuse(table: Path, key: str, kind: type, value: object) -> NoReturn:
    got = "nothing" if value is None else json.dumps(value)
    got = got if len(got) <= 40 else f"{got[:37]}..."
    msg = f"{table}: {key} must be {_KINDS[kind]}, got {got}; fix it or download the file again"
    raise UserError(msg)

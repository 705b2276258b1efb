"""Describes a data set before training: a table of its images, and duplicates."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import combinations, product
from math import comb
from typing import TYPE_CHECKING, NamedTuple

from meds_plugin.data.check import image_key
from meds_plugin.data.faults import shown
from meds_plugin.data.file_search import natural_key
from meds_plugin.utils.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meds_plugin.data.check import CheckReport, ImageFacts
    from meds_plugin.data.samples import Sample, Split

__all__ = ["duplicates", "inventory_table"]

_KINDS = {"L": "grey", "LA": "grey+alpha", "P": "palette", "PA": "palette+alpha", "F": "float"}
_SHORTEST_PATH = 24
_MOST_WORDS = 8
_LONGEST_WORD = 40
_GAP = "  "


class _Pairs(NamedTuple):
    """All pairs of a group of identical files; the planned ones are a noise protocol's."""

    total: int
    planned: int
    pairs: Iterable[tuple[Sample, Sample]]


def inventory_table(split: Split, report: CheckReport | None, *, width: int = 120) -> str:
    """Return a description of the data set, to be printed before training.

    Args:
        split: The images of the run.
        report: Their check; ``None`` leaves out what only it knows.
        width: Maximum length of the table's lines; below about 90 they may be longer.

    Returns:
        A row per category: numbers of images, sizes, pixel formats and the first path; below it,
        which labels were taken for normal and for defective, the notes and the duplicates. A ``?``
        stands for an unknown number.
    """
    names = sorted(split.categories, key=natural_key)
    rows = []
    for name in names:
        train = [sample for sample in split.train if sample.category == name]
        test = [sample for sample in split.test if sample.category == name]
        rows.append([shown(name), *_counts(train, test), *_looks([*train, *test], report)])
    if len(names) > 1:
        looks = _looks([*split.train, *split.test], report)[:-1]
        rows.append(["all", *_counts(split.train, split.test), *looks, ""])
    over = ["", "train", "train", "test", "test", "test", "", "", "", ""]
    heads = ["category", "images", "defect", "normal", "defect", "masks", "views"]
    table = _aligned([over, [*heads, "pixels", "kind", "first image"], *rows], width)
    notes = [f"note: {note}" for note in split.notes]
    unknown = "identical files, near-duplicates, issues: not checked"
    found = duplicates(split, report) if report else [unknown]
    return "\n".join([*table, *_labels(split), *notes, *found])


def duplicates(split: Split, report: CheckReport) -> list[str]:
    """Describe the images with identical files, one finding per line.

    Pairs that a noise protocol made by using a file again are counted apart: a repeated image, and
    an injected one that is a test image too.

    Args:
        split: The images, after contamination.
        report: Their check.
    """
    same: dict[str, tuple[list[Sample], list[Sample]]] = defaultdict(lambda: ([], []))
    for place, samples in enumerate((split.train, split.test)):
        for sample in samples:
            if facts := report.facts_of(sample):
                same[facts.digest][place].append(sample)
    groups = same.values()
    within = [
        _Pairs(comb(len(train), 2), _planned_within(train), combinations(train, 2))
        for train, _ in groups
    ]
    across = [
        _Pairs(len(train) * len(test), _planned_across(train, test), product(train, test))
        for train, test in groups
    ]
    lines = _unplanned(within, "within the training images")
    lines += _unplanned(across, "of a training and a test image: a leak")
    lines = lines or ["identical files: none"]
    if overlapping := sum(pairs.planned for pairs in across):
        lines.append(
            f"{overlapping} injected images are also test images, as the noise protocol keeps them "
            "there"
        )
    if repeated := sum(pairs.planned for pairs in within):
        lines.append(f"{repeated} pairs of injected images are variations of one file")
    return lines


def _counts(train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
    known = sum(_is_defective(sample) for sample in train)
    unknown = any(sample.injected is None and not sample.is_anomaly for sample in train)
    defects = sum(sample.is_anomaly for sample in test)
    masks = sum(sample.mask is not None for sample in test)
    views = {sample.view for sample in [*train, *test]} - {None}
    numbers = [len(train), known, len(test) - defects, defects, masks, len(views) or ""]
    texts = [str(number) for number in numbers]
    if unknown:
        texts[1] = f"{known}+?" if known else "?"
    return texts


def _labels(split: Split) -> list[str]:
    """Say in a line what was taken for normal and for defective, in the data set's own words."""
    counts: dict[str, dict[str, Counter[str]]] = {
        kind: defaultdict(Counter) for kind in ("normal", "defective", "unknown")
    }
    for part, samples in (("train", split.train), ("test", split.test)):
        for sample in samples:
            known = part == "test" or sample.injected is not None
            kind = "defective" if _is_defective(sample) else "normal" if known else "unknown"
            counts[kind][sample.label or sample.defect or ""][part] += 1
    if counts["defective"]:
        counts["normal"] = counts["normal"] or {"none": Counter()}
    parts = [f"{kind}: {_words(words)}" for kind, words in counts.items() if words]
    return ["; ".join(parts)] if parts else []


def _words(counts: Mapping[str, Counter[str]]) -> str:
    order = sorted(counts, key=lambda word: -counts[word].total())
    texts = []
    for word in order[:_MOST_WORDS]:
        numbers = " + ".join(f"{number} ({part})" for part, number in counts[word].items())
        named = repr(word) if word.isdecimal() else _shortened(shown(word), _LONGEST_WORD)
        texts.append(f"{named} {numbers}".strip())
    if rest := order[_MOST_WORDS:]:
        images = sum(counts[word].total() for word in rest)
        texts.append(f"{len(rest)} more ({images} images)")
    return ", ".join(texts)


def _is_defective(sample: Sample) -> bool:
    return sample.is_anomaly or bool(sample.injected)


def _looks(samples: Sequence[Sample], report: CheckReport | None) -> list[str]:
    """Return sizes, pixel formats and the first path."""
    first = shown(samples[0].path)
    facts = [found for sample in samples if report and (found := report.facts_of(sample))]
    if not facts:
        return ["?", "?", first]
    return [_sizes(facts), _kinds(facts), first]


def _sizes(facts: Sequence[ImageFacts]) -> str:
    counts = Counter((fact.width, fact.height) for fact in facts)
    (most, count), *others = counts.most_common()
    if not others:
        return f"{most[0]}x{most[1]}"
    widths, heights = zip(*counts, strict=True)
    span = f"{min(widths)}x{min(heights)}..{max(widths)}x{max(heights)}"
    return f"{span}, mostly {most[0]}x{most[1]}" if 2 * count > len(facts) else span


def _kinds(facts: Sequence[ImageFacts]) -> str:
    names: Counter[str] = Counter()
    for fact in facts:
        name = "grey" if fact.mode[0] in "I1" else _KINDS.get(fact.mode, fact.mode)
        names[name if fact.bits == 8 else f"{name} {fact.bits}-bit"] += 1
    return ", ".join(name for name, _ in names.most_common())


def _aligned(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Align rows: the first column and the last three to the left, numbers to the right."""
    body = rows[2:]
    if not body:
        return []
    filled = [at for at in range(len(rows[0])) if any(row[at] for row in body)]
    rows = [[row[at] for at in filled] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    taken = sum(widths[:-1]) + len(_GAP) * (len(widths) - 1)
    widths[-1] = min(widths[-1], max(width - taken, _SHORTEST_PATH))
    numbers = range(1, len(widths) - 3)
    lines = []
    for row in rows:
        cells = [*row[:-1], _shortened(row[-1], widths[-1])]
        lines.append(
            _GAP.join(
                cell.rjust(widths[at]) if at in numbers else cell.ljust(widths[at])
                for at, cell in enumerate(cells)
            ).rstrip()
        )
    return lines


def _shortened(path: str, width: int) -> str:
    """Cut out the middle: the first folders and the file's number say most."""
    if len(path) <= width:
        return path
    end = (width - 3) // 2
    return f"{path[: width - 3 - end]}...{path[-end:]}"


def _unplanned(groups: Sequence[_Pairs], where: str) -> list[str]:
    """Describe the pairs that no noise protocol has made."""
    count = sum(pairs.total - pairs.planned for pairs in groups)
    if not count:
        return []
    found = (pair for group in groups if group.total > group.planned for pair in group.pairs)
    first = next(pair for pair in found if not _planned(*pair))
    one, two = (shown(sample.path) for sample in first)
    example = f"({one} = {two}{', ...' if count > 1 else ''})"
    return [f"identical files: {counted(count, 'pair')} {example} {where}"]


def _planned(one: Sample, two: Sample) -> bool:
    """Whether a noise protocol used the file of one image for the other."""
    return image_key(one.image) == image_key(two.image) and bool(one.injected or two.injected)


def _planned_within(train: Sequence[Sample]) -> int:
    """Count the planned pairs without enumerating all, of which there may be too many."""
    uses = Counter(image_key(sample.image) for sample in train)
    own = Counter(image_key(sample.image) for sample in train if not sample.injected)
    return sum(comb(count, 2) - comb(own[key], 2) for key, count in uses.items())


def _planned_across(train: Sequence[Sample], test: Sequence[Sample]) -> int:
    injected = Counter(image_key(sample.image) for sample in train if sample.injected)
    return sum(injected[image_key(sample.image)] for sample in test)

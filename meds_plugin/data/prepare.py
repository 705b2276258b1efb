"""From the images a reader found to those of a run: checks, contamination, exclusion."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, get_args

from meds_plugin.data.check import check_samples
from meds_plugin.data.decoding import MAX_PIXELS
from meds_plugin.data.exclude import exclude, read_exclude
from meds_plugin.data.faults import bad_name, writable
from meds_plugin.data.image_faults import find_faults
from meds_plugin.data.inventory import inventory_table
from meds_plugin.data.links import links_out
from meds_plugin.data.mask_notes import mask_notes
from meds_plugin.data.masks import checked_mask_values
from meds_plugin.data.noise import checked_protocol, checked_ratio, contaminate, recounted
from meds_plugin.data.samples import Problem
from meds_plugin.data.value_range import checked_range, choose_range
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from meds_plugin.data.check import CheckReport
    from meds_plugin.data.image_faults import ImageFaults
    from meds_plugin.data.images import ValueRange
    from meds_plugin.data.masks import MaskValues
    from meds_plugin.data.noise import NoiseReport
    from meds_plugin.data.samples import Sample, Split

__all__ = ["BadFilesError", "DataSettings", "Prepared", "prepare"]

OnError = Literal["stop", "skip"]
_NAMED = 50


class BadFilesError(UserError):
    """Images cannot be used, and ``data.on_error`` is ``stop``.

    Attributes:
        problems: All that was found; the message names the first 50.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        count = len({problem.path for problem in problems})
        named = "; ".join(problem.reason for problem in problems[:_NAMED])
        if len(problems) > _NAMED:
            named += f"; and {len(problems) - _NAMED} more, see bad_files.csv"
        super().__init__(
            f"{counted(count, 'image')} cannot be used: {named}; "
            "repair or remove them, or leave them out with data.on_error=skip"
        )


@dataclass(frozen=True)
class DataSettings:
    """What happens to images between finding them and training on them.

    Attributes:
        noise: Ratio of defective images (see `contaminate`).
        noise_protocol: See `contaminate`.
        noise_definition: See `contaminate`.
        noise_file: See `contaminate`.
        exclude: File that names training images to leave out (see `read_exclude`).
        on_error: What to do if images or their masks cannot be used: ``stop`` names all of them,
            ``skip`` continues without these images.
        max_pixels: Largest number of pixels of an image; larger ones cannot be used.
        outside_links: Whether links may lead outside the data set's folder; otherwise images
            reached by such links cannot be used.
        check: Decode every file once beforehand; otherwise a bad file stops the run when it is
            reached, and sizes, duplicates, issues of images, odd masks and the largest value are
            unknown.
        value_range: Values of black and white in files of more than 8 bits: ``auto``, ``full`` or
            both numbers (see `choose_range`).
        mask_values: Which values of masks are defective (see `to_mask`).

    Raises:
        UserError: If a setting is invalid.
    """

    noise: float | None = None
    noise_protocol: str = "overlap"
    noise_definition: str = "normal"
    noise_file: str | Path | None = None
    exclude: str | Path | None = None
    on_error: OnError = "stop"
    max_pixels: int = MAX_PIXELS
    outside_links: bool = False
    check: bool = True
    value_range: Literal["auto", "full"] | Sequence[float] = "auto"
    mask_values: MaskValues = "auto"

    def __post_init__(self) -> None:
        """Validate the settings."""
        checked_protocol(self.noise_protocol, self.noise_definition, self.noise_file)
        if self.noise is not None:
            checked_ratio(self.noise)
        if self.on_error not in get_args(OnError):
            msg = f"data.on_error must be stop or skip, got {self.on_error!r}"
            raise UserError(msg)
        for key in ("outside_links", "check"):
            if not isinstance(getattr(self, key), bool):
                msg = f"data.{key} must be true or false, got {getattr(self, key)!r}"
                raise UserError(msg)
        checked_range(self.value_range)
        checked_mask_values(self.mask_values)


@dataclass(frozen=True)
class Prepared:
    """The images of a run.

    Attributes:
        split: The training and test images.
        noise: The contamination asked for and achieved, after exclusion.
        skipped: Images left out because they cannot be used.
        summary: A description of the data set for the user.
        value_range: Values of black and white in files of more than 8 bits.
        report: What checking the files found; ``None`` if they were not checked.
        faults: Faults of the training images that can be read; likewise.
    """

    split: Split
    noise: NoiseReport
    skipped: list[Problem] = field(default_factory=list)
    summary: str = ""
    value_range: ValueRange = None
    report: CheckReport | None = None
    faults: ImageFaults | None = None


def prepare(found: Split, settings: DataSettings, *, seed: int = 0) -> Prepared:
    """Check and contaminate images, and leave out those that are excluded.

    Unusable images go before contamination, which must only inject readable ones; excluded images
    go after it, so that none takes the place of an excluded one.

    Args:
        found: What a reader found.
        settings: What to do with it.
        seed: The run's seed; only the choice of injected images depends on it.

    Raises:
        BadFilesError: If images cannot be used and ``settings.on_error`` is ``stop``.
        UserError: If a setting is wrong or a category has nothing left to train on.
    """
    names = None if settings.exclude is None else read_exclude(settings.exclude)
    everything = [*found.train, *found.test]
    unfit = {s.path: why for s in everything if (why := bad_name(s.path, s.category))}
    unfit |= {} if settings.outside_links else links_out(everything, found.folders)
    problems = [*found.problems, *(Problem(writable(p), why) for p, why in unfit.items())]
    bad = set(unfit)
    report = None
    if settings.check:
        fit = [sample for sample in everything if sample.path not in unfit]
        report = check_samples(
            fit,
            max_pixels=settings.max_pixels,
            mask_values=settings.mask_values,
            value_range=checked_range(settings.value_range),
        )
        problems += report.problems
        bad |= report.unusable
    if problems and settings.on_error == "stop":
        raise BadFilesError(problems)
    split = replace(
        found,
        train=[sample for sample in found.train if sample.path not in bad],
        test=[sample for sample in found.test if sample.path not in bad],
    )
    # Of all images, so that it does not depend on which are injected or excluded.
    value_range, notes = choose_range(settings.value_range, everything, report)
    split, noise = contaminate(
        split,
        settings.noise,
        protocol=settings.noise_protocol,
        definition=settings.noise_definition,
        noise_file=settings.noise_file,
        left_out=[sample for sample in everything if sample.path in bad],
        seed=seed,
    )
    if names is not None:
        split = _without(split, names, settings.exclude)
        if noise.counts:
            noise = recounted(noise, split.train)
    _require_training(found.train, split.train)
    notes += mask_notes([*split.train, *split.test], report) if report else []
    split = replace(split, notes=[*split.notes, *notes])
    faults = find_faults(split, report) if report else None
    lines = [inventory_table(split, report), *(faults.lines if faults else [])]
    if count := len({problem.path for problem in problems}):
        lines.append(f"left out because they cannot be used: {counted(count, 'image')}")
    summary = "\n".join(line for line in lines if line)
    return Prepared(split, noise, problems, summary, value_range, report, faults)


def _without(split: Split, names: Iterable[str], file: str | Path | None) -> Split:
    train, unknown = exclude(split.train, set(names))
    left_out = counted(len(split.train) - len(train), "training image")
    note = f"data.exclude={file} leaves out {left_out}"
    notes = [*split.notes, note]
    if unknown:
        first = min(unknown)
        notes.append(
            f"data.exclude={file}: {counted(len(unknown), 'name')} of no training image here, "
            f"first {first}"
        )
    return replace(split, train=train, notes=notes)


def _require_training(before: list[Sample], after: list[Sample]) -> None:
    """Refuse to go on if a category has no training images left."""
    if not after:
        msg = "there are no training images; name a data set that has some in data.root"
        raise UserError(msg)
    lost = sorted({s.category for s in before} - {s.category for s in after})
    if lost:
        msg = (
            f"no training image is left in {', '.join(lost)}: repair its images, exclude fewer, or "
            "leave it out of data.categories"
        )
        raise UserError(msg)

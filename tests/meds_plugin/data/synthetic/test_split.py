from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from meds_plugin.data.synthetic.split import CATEGORIES, synthetic_split
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from meds_plugin.data.samples import Pixels, Sample, Split


def _pixels(sample: Sample) -> Pixels:
    assert isinstance(sample.image, np.ndarray)
    return sample.image


def _mask(sample: Sample) -> Pixels:
    assert isinstance(sample.mask, np.ndarray)
    return sample.mask


def _centre(sample: Sample) -> tuple[float, float]:
    rows, columns = np.nonzero(_mask(sample))
    return float(rows.mean()) / len(_mask(sample)), float(columns.mean()) / len(_mask(sample))


@pytest.fixture(scope="module")
def split() -> Split:
    return synthetic_split(size=64, train_normal=4, test_normal=3, test_defective=30)


def test_counts_names_and_order(split: Split) -> None:
    assert CATEGORIES == ("board", "gear", "weave", "wood")
    assert split.categories == list(CATEGORIES)
    assert len(split.train) == 4 * 4
    assert len(split.test) == 4 * (3 + 30)
    assert [sample.path for sample in split.train[:4]] == [
        f"board/train/good/00{n}.png" for n in range(4)
    ]
    paths = [sample.path for sample in [*split.train, *split.test]]
    assert len(set(paths)) == len(paths)
    assert [s.path for s in split.test] == sorted(s.path for s in split.test)
    assert not any(sample.is_anomaly for sample in split.train)
    for sample in split.test:
        category, part, kind, _ = sample.path.split("/")
        assert (category, part) == (sample.category, "test")
        assert kind == (sample.defect or "good")


@pytest.mark.parametrize("category", CATEGORIES)
def test_defects_are_spread_evenly_the_first_kinds_getting_the_rest(category: str) -> None:
    split = synthetic_split(
        categories=[category], size=32, train_normal=0, test_normal=0, test_defective=7
    )
    kinds = sorted({str(sample.defect) for sample in split.test})
    counts = [sum(sample.defect == kind for sample in split.test) for kind in kinds]
    assert len(kinds) >= 4
    assert counts == sorted(counts, reverse=True)
    assert max(counts) - min(counts) == 1
    assert sum(counts) == 7


def test_there_are_at_least_five_kinds_of_defect_and_missing_parts(split: Split) -> None:
    kinds = {category: {s.defect for s in split.test if s.category == category and s.is_anomaly}
             for category in CATEGORIES}  # fmt: skip
    assert len(set().union(*kinds.values())) >= 5
    assert "missing" in kinds["board"]
    assert "missing" in kinds["gear"]


def test_pixels_and_masks_have_the_promised_form(split: Split) -> None:
    for sample in [*split.train, *split.test]:
        assert _pixels(sample).shape == (64, 64, 3)
        assert _pixels(sample).dtype == np.uint8
        if sample.is_anomaly:
            assert _mask(sample).shape == (64, 64)
            assert _mask(sample).dtype == np.uint8
            assert set(np.unique(_mask(sample))) == {0, 255}
        else:
            assert sample.mask is None


def test_defects_are_of_modest_size(split: Split) -> None:
    shares = [float((_mask(s) > 0).mean()) for s in split.test if s.is_anomaly]
    assert min(shares) > 0.001
    assert max(shares) < 0.06
    assert 0.005 < float(np.median(shares)) < 0.03


def test_the_same_seed_gives_the_same_images_and_another_seed_others(split: Split) -> None:
    again = synthetic_split(size=64, train_normal=4, test_normal=3, test_defective=30)
    for one, two in zip([*split.train, *split.test], [*again.train, *again.test], strict=True):
        np.testing.assert_array_equal(_pixels(one), _pixels(two))
        if one.is_anomaly:
            np.testing.assert_array_equal(_mask(one), _mask(two))
    other = synthetic_split(seed=1, size=64, train_normal=4, test_normal=0, test_defective=4)
    for one, two in zip(split.train, other.train, strict=True):
        assert not np.array_equal(_pixels(one), _pixels(two))


def test_an_image_does_not_depend_on_what_else_is_drawn(split: Split) -> None:
    known = {sample.path: sample for sample in [*split.train, *split.test]}
    part = synthetic_split(
        categories=["wood", "gear"], size=64, train_normal=2, test_normal=1, test_defective=10
    )
    assert part.categories == ["gear", "wood"]
    for sample in [*part.train, *part.test]:
        np.testing.assert_array_equal(_pixels(sample), _pixels(known[sample.path]))
        if sample.is_anomaly:
            np.testing.assert_array_equal(_mask(sample), _mask(known[sample.path]))


def test_no_two_images_are_the_same_or_nearly(split: Split) -> None:
    for category in CATEGORIES:
        samples = [s for s in [*split.train, *split.test] if s.category == category]
        images = np.stack([_pixels(s) for s in samples]).astype(np.float32)
        for index, image in enumerate(images[1:], start=1):
            assert np.abs(images[:index] - image).mean(axis=(1, 2, 3)).min() > 1.0


def test_defects_recur_in_a_few_places(split: Split) -> None:
    # The third image of a kind shows its second mode, the sixth its third, all others its first.
    modes = (0, 0, 1, 0, 0, 2)
    for category in CATEGORIES:
        kinds = sorted({str(s.defect) for s in split.test if s.category == category} - {"None"})
        for kind in kinds:
            samples = [s for s in split.test if s.category == category and s.defect == kind][:6]
            spots = np.array([_centre(s) for s in samples])
            gaps = np.linalg.norm(spots[:, None] - spots[None], axis=2)
            same = np.equal.outer(modes, modes)
            assert gaps[same].max() < 0.12, (category, kind)
            assert gaps[~same].min() > gaps[same].max(), (category, kind)


def test_an_image_looks_the_same_at_every_size() -> None:
    small = synthetic_split(size=64, train_normal=1, test_normal=0, test_defective=5)
    large = synthetic_split(size=128, train_normal=1, test_normal=0, test_defective=5)
    for one, two in zip([*small.train, *small.test], [*large.train, *large.test], strict=True):
        halved = _pixels(two).reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
        # The sensor's noise differs, the scene does not.
        assert np.abs(halved - _pixels(one)).mean() < 9.0, one.path
        if one.is_anomaly:
            assert np.hypot(*np.subtract(_centre(one), _centre(two))) < 0.03, one.path


@pytest.mark.parametrize("size", [32, 45, 512])
def test_sizes(size: int) -> None:
    split = synthetic_split(
        size=size, train_normal=1, test_normal=0, test_defective=5 * 32 // size or 1
    )
    for sample in [*split.train, *split.test]:
        assert _pixels(sample).shape == (size, size, 3)
        assert not sample.is_anomaly or _mask(sample).any()
        assert _pixels(sample).std() > 10


def test_unknown_categories_are_named_with_what_exists() -> None:
    with pytest.raises(UserError, match=r"bottle.*board, gear, weave, wood") as caught:
        synthetic_split(categories=["board", "bottle"])
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no category is named"):
        synthetic_split(categories=[])


def test_images_for_a_height_and_a_width_have_the_longer_side() -> None:
    counts: dict[str, Any] = {"train_normal": 1, "test_normal": 0, "test_defective": 0}
    wide = synthetic_split(categories=["gear"], size=[32, 48], **counts)
    square = synthetic_split(categories=["gear"], size=48, **counts)
    np.testing.assert_array_equal(_pixels(wide.train[0]), _pixels(square.train[0]))


@pytest.mark.parametrize("size", [31, 1025, [64, 31], [64, 64, 64], [], "big", 64.5])
def test_sizes_out_of_range_are_refused(size: Any) -> None:
    with pytest.raises(UserError, match="image_size"):
        synthetic_split(size=size)


@pytest.mark.parametrize("count", [-1, 2.5, "abc", None, True])
@pytest.mark.parametrize("key", ["train_normal", "test_normal", "test_defective"])
def test_wrong_counts_are_named(key: str, count: Any) -> None:
    with pytest.raises(UserError, match=rf"data\.source\.{key} must be a whole number"):
        synthetic_split(**{key: count})

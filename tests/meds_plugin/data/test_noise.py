from __future__ import annotations

import csv
from collections import Counter

import numpy as np
import pytest

from meds_plugin.data.noise import contaminate, defects_wanted
from meds_plugin.data.samples import Sample, Split
from meds_plugin.errors import UserError
from tests.conftest import SHARED

# Normal training images and defective test images of MVTec AD's categories.
MVTEC = {
    "bottle": (209, 63),
    "cable": (224, 92),
    "capsule": (219, 109),
    "carpet": (280, 89),
    "grid": (264, 57),
    "hazelnut": (391, 70),
    "leather": (245, 92),
    "metal_nut": (220, 93),
    "pill": (267, 141),
    "screw": (320, 119),
    "tile": (230, 84),
    "toothbrush": (60, 30),
    "transistor": (213, 40),
    "wood": (247, 60),
    "zipper": (240, 119),
}


def _split(sizes: dict[str, tuple[int, int]]) -> Split:
    pixels = np.zeros((1, 1, 3), np.uint8)
    train, test = [], []
    for name, (normal, defects) in sizes.items():
        train += [Sample(f"{name}/train/good/{i}", name, None, pixels) for i in range(normal)]
        test += [Sample(f"{name}/test/good/{i}", name, None, pixels) for i in range(2)]
        test += [Sample(f"{name}/test/hole/{i}", name, "hole", pixels) for i in range(defects)]
    return Split(train=train, test=test)


def _injected(split: Split, category: str = "") -> list[str]:
    return [s.path for s in split.train if s.injected and s.category.startswith(category)]


@pytest.mark.parametrize(
    ("good", "defects", "ratio", "count"),
    [
        (209, 63, 0.1, 21),
        (209, 63, 0.4, 63),
        (225, 99, 0.1, 22),  # 22.5
        (245, 92, 0.1, 24),  # 24.5
        (235, 99, 0.1, 24),  # 23.5
        (60, 30, 0.4, 24),
        (90, 99, 0.35, 32),  # 31.5, which floats miss
        (60, 30, 0.0, 0),
        (60, 0, 0.4, 0),
    ],
)
def test_count(good: int, defects: int, ratio: float, count: int) -> None:
    split, report = contaminate(_split({"a": (good, defects)}), ratio, seed=0)
    assert report.counts == {"a": count}
    assert len(_injected(split)) == len(set(_injected(split))) == count
    assert len(split.train) == good + count
    assert report.asked == ratio
    assert report.achieved_of_normal == pytest.approx(count / good)
    assert report.achieved_of_all == pytest.approx(count / (good + count))


@pytest.mark.parametrize(("percent", "total"), [(10, 362), (20, 715), (40, 1167)])
def test_counts_of_the_authors_lists(percent: int, total: int) -> None:
    _, report = contaminate(_split(MVTEC), percent / 100, seed=0)
    assert sum(report.counts.values()) == total
    path = SHARED / "data" / "noise_splits" / "mvtec" / f"train_mvtec_nr{percent}_seed_10.csv"
    if not path.is_file():
        pytest.skip(f"the authors' lists are not here: {path}")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if "/train/good/" not in row["filename"]]
    assert report.counts == Counter(row["clsname"] for row in rows)


def test_visa_counts() -> None:
    good = {"candle": 900, "capsules": 542, "cashew": 450, "chewinggum": 453, "pcb2": 901}
    wanted = {0.02: [18, 11, 9, 9, 18], 0.05: [45, 27, 22, 23, 45], 0.1: [90, 54, 45, 45, 90]}
    for ratio, counts in wanted.items():
        assert [defects_wanted(ratio, normal) for normal in good.values()] == counts


def test_samples_and_order() -> None:
    clean = _split({"a": (10, 5), "b": (10, 5)})
    split, _ = contaminate(clean, 0.3, seed=0)
    assert [s.path for s in split.train[:20]] == [s.path for s in clean.train]
    assert all(s.injected is False and not s.is_anomaly for s in split.train[:20])
    added = split.train[20:]
    assert all(s.injected is True and s.defect == "hole" for s in added)
    order = [s.path for s in clean.test]
    assert [s.path for s in added] == sorted((s.path for s in added), key=order.index)
    assert [s.path for s in split.test] == order  # overlap: the test set is untouched
    assert {s.path for s in added} <= set(order)


def test_none_takes_the_images_as_they_are() -> None:
    clean = _split({"a": (10, 5)})
    split, report = contaminate(clean, None, seed=0)
    assert [s.path for s in split.train] == [s.path for s in clean.train]
    assert all(sample.injected is None for sample in split.train)
    assert report.asked is report.achieved_of_normal is report.achieved_of_all is None
    assert report.counts == {}
    assert contaminate(clean, 0)[0].train[0].injected is False


def test_draws_depend_on_seed_and_own_category_only() -> None:
    one, _ = contaminate(_split({"b": (40, 30)}), 0.4, seed=3)
    more, _ = contaminate(_split({"c": (9, 9), "a": (40, 30), "b": (40, 30)}), 0.4, seed=3)
    assert _injected(one) == _injected(more, "b")
    assert [p[1:] for p in _injected(more, "a")] != [p[1:] for p in _injected(more, "b")]
    again, _ = contaminate(_split({"b": (40, 30)}), 0.4, seed=3)
    other, _ = contaminate(_split({"b": (40, 30)}), 0.4, seed=4)
    assert _injected(one) == _injected(again)
    assert set(_injected(one)) != set(_injected(other))


def test_draws_do_not_depend_on_the_order_of_listing() -> None:
    split = _split({"a": (40, 30)})
    turned = Split(train=split.train, test=split.test[::-1])
    one, other = (contaminate(s, 0.4, seed=0)[0] for s in (split, turned))
    assert set(_injected(one)) == set(_injected(other))


def test_larger_ratio_contains_the_smaller() -> None:
    split = _split({"a": (100, 80)})
    sets = [set(_injected(contaminate(split, ratio, seed=1)[0])) for ratio in (0.1, 0.2, 0.4)]
    assert sets[0] < sets[1] < sets[2]


@pytest.mark.parametrize("ratio", [0.2, 0.9])
def test_no_overlap_takes_images_out_of_the_test_set(ratio: float) -> None:
    clean = _split({"a": (40, 30), "b": (20, 5), "c": (10, 1), "d": (10, 0)})
    split, report = contaminate(clean, ratio, protocol="no_overlap", seed=0)
    assert not {s.path for s in split.train} & {s.path for s in split.test}
    assert len(split.train) + len(split.test) == len(clean.train) + len(clean.test)
    assert {s.category for s in split.test if s.is_anomaly} == {"a", "b", "c"}
    assert report.counts["c"] == report.counts["d"] == 0
    assert report.protocol == "no_overlap"
    assert any("beside the one that stays in the test set" in line for line in report.messages)


def test_both_protocols_draw_the_same_images() -> None:
    split = _split({"a": (40, 30)})
    one, other = (
        contaminate(split, 0.4, protocol=name, seed=0)[0] for name in ("overlap", "no_overlap")
    )
    assert _injected(one) == _injected(other)


def test_shortage_is_told(caplog: pytest.LogCaptureFixture) -> None:
    _, report = contaminate(_split({"brick": (60, 30), "wood": (10, 30)}), 0.6, seed=0)
    expected = (
        "noise=0.6 asks for 36 defective images in category brick but only 30 exist: 30 used "
        "(0.50 of normal, 0.33 of all)"
    )
    assert report.messages == [expected]
    assert [record.message for record in caplog.records] == report.messages
    assert report.achieved_of_normal == pytest.approx(36 / 70)
    assert report.achieved_of_all == pytest.approx(36 / 106)


@pytest.mark.parametrize("ratio", [1, 1.0, 40, -0.1, float("nan"), True, "0.4"])
def test_wrong_ratio(ratio: float) -> None:
    with pytest.raises(UserError, match=r"^noise must be in \[0, 1\), got .*; noise=0.4 adds"):
        contaminate(_split({"a": (4, 4)}), ratio, seed=0)


@pytest.mark.parametrize("ratio", [0.1, None])
def test_wrong_protocol(ratio: float | None) -> None:
    with pytest.raises(UserError, match="noise_protocol must be one of overlap, no_overlap; got"):
        contaminate(_split({"a": (4, 4)}), ratio, protocol="split", seed=0)

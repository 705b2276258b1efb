from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from meds_plugin.data.injection import defects_wanted
from meds_plugin.data.noise import contaminate
from meds_plugin.data.samples import Problem, Sample, Split, Variation
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize(
    ("normal", "ratio", "count"),
    [
        (60, 0.4, 40),
        (60, 0.1, 7),  # 6.67
        (5, 0.1, 1),  # 0.56
        (10, 0.2, 2),  # 2.5
        (14, 0.2, 4),  # 3.5
        (45, 0.1, 5),  # 5, which floats miss
        (3, 0.0, 0),
    ],
)
def test_ratio_of_all(normal: int, ratio: float, count: int) -> None:
    split, report = contaminate(_split({"a": (normal, 50)}), ratio, definition="all")
    assert defects_wanted(ratio, normal, "all") == count == len(_injected(split))
    assert report.definition == "all"
    assert report.achieved_of_all == pytest.approx(count / (normal + count))
    assert contaminate(_split({"a": (4, 4)}), 0)[1].definition == "normal"


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
def test_wrong_settings(ratio: float | None) -> None:
    split = _split({"a": (4, 4)})
    known = "overlap, no_overlap, overlap_repeat, split_file"
    with pytest.raises(UserError, match=f"noise_protocol must be one of {known}; got 'split'"):
        contaminate(split, ratio, protocol="split")
    with pytest.raises(UserError, match="noise_definition must be one of normal, all; got 'some'"):
        contaminate(split, ratio, definition="some")
    with pytest.raises(UserError, match=r"noise_protocol=split_file .* give noise_file=CSV"):
        contaminate(split, ratio, protocol="split_file")
    with pytest.raises(UserError, match=r"noise_file=a\.csv .* give noise_protocol=split_file"):
        contaminate(split, ratio, noise_file="a.csv")


def test_problems_and_notes_are_kept() -> None:
    clean = replace(_split({"a": (4, 4)}), problems=[Problem("x", "gone")], notes=["no masks"])
    for ratio in (None, 0, 0.5):
        split, _ = contaminate(clean, ratio)
        assert (split.problems, split.notes) == (clean.problems, clean.notes)


def _held(known: int, defects: int) -> Split:
    """Return a set that has known defects among its training images."""
    split = _split({"a": (10, defects), "b": (10, 2)})
    marked = [replace(sample, injected=False) for sample in split.train]
    pixels = split.train[0].image
    marked += [Sample(f"a/bad/{i}", "a", "hole", pixels, injected=True) for i in range(known)]
    return replace(split, train=marked)


def test_none_keeps_known_marks() -> None:
    clean = _held(4, 5)
    split, report = contaminate(clean, None)
    assert split.train == clean.train
    assert split.test == clean.test
    assert report.asked is None
    assert report.counts == {"a": 4, "b": 0}
    assert report.achieved_of_normal == pytest.approx(4 / 20)
    assert report.achieved_of_all == pytest.approx(4 / 24)


def test_none_keeps_the_mark_of_a_set_known_to_be_clean() -> None:
    split, report = contaminate(_held(0, 5), None)
    assert {sample.injected for sample in split.train} == {False}
    assert report.achieved_of_normal == 0


def test_known_defects_count_towards_the_ratio() -> None:
    split, report = contaminate(_held(2, 5), 0.4)
    assert report.counts == {"a": 4, "b": 2}
    assert Counter(path.split("/")[1] for path in _injected(split, "a")) == {"bad": 2, "test": 2}
    shortage = (
        "noise=0.4 asks for 4 defective images in category b but only 2 exist: 2 used "
        "(0.20 of normal, 0.17 of all)"
    )
    assert report.messages == [shortage]
    split, report = contaminate(_held(3, 5), 0)
    assert report.counts == {"a": 3, "b": 0}
    assert report.achieved_of_normal == pytest.approx(3 / 20)
    assert len(report.messages) == 1
    assert "contain 3 more known defects than noise=0 asks for" in report.messages[0]


def test_a_defect_that_is_trained_on_already_is_not_added() -> None:
    clean = _split({"a": (10, 3)})
    shared = next(sample for sample in clean.test if sample.is_anomaly)
    clean.train.append(replace(shared, injected=True))
    for protocol in ("overlap", "overlap_repeat"):
        split, _ = contaminate(clean, 0.5, protocol=protocol)
        paths = [sample.path for sample in split.train]
        assert len(set(paths)) == len(paths)
        assert len(_injected(split)) == (3 if protocol == "overlap" else 5)


def test_images_without_any_label() -> None:
    split = _split({"a": (10, 0), "b": (5, 0)})
    for protocol in ("overlap", "no_overlap", "overlap_repeat"):
        with pytest.raises(UserError, match=r"^noise=0.4 needs .*; noise=null takes its training"):
            contaminate(split, 0.4, protocol=protocol)
    result, report = contaminate(split, 0)
    assert {sample.injected for sample in result.train} == {None}
    assert report.asked == 0
    assert report.achieved_of_normal is None


def test_repeats() -> None:
    clean = _split({"a": (40, 6), "b": (10, 5)})
    split, report = contaminate(clean, 0.4, protocol="overlap_repeat")
    assert report.counts == {"a": 16, "b": 4}
    assert report.messages == []
    assert report.repeated == 10
    assert report.achieved_of_normal == pytest.approx(20 / 50)
    assert split.test == clean.test
    plain, _ = contaminate(clean, 0.4)
    first = [sample for sample in split.train if sample.variation is None]
    assert [s.path for s in first] == [s.path for s in plain.train]
    repeats = [sample for sample in split.train if sample.variation is not None]
    assert split.train == first + repeats
    assert all(sample.injected for sample in repeats)
    sources = {sample.path: sample for sample in clean.test}
    numbers: Counter[int] = Counter()
    for sample in repeats:
        path, number = sample.path.split("#")
        numbers[int(number)] += 1
        assert sample.image is sources[path].image
        assert sample.defect == sources[path].defect
    assert numbers == {2: 6, 3: 4}
    assert len({sample.path for sample in split.train}) == len(split.train)
    rounds = [[s.path[:-2] for s in repeats if s.path.endswith(end)] for end in ("#2", "#3")]
    assert rounds[0][:4] != rounds[1]


def test_variations() -> None:
    clean = _split({"a": (900, 2)})
    split, _ = contaminate(clean, 0.5, protocol="overlap_repeat", seed=1)
    found = [sample.variation for sample in split.train if sample.variation is not None]
    turns, scales = [v.turn for v in found], [v.scale for v in found]
    assert -3 <= min(turns) < -2.9
    assert 2.9 < max(turns) <= 3
    assert 0.97 <= min(scales) < 0.971
    assert 1.029 < max(scales) <= 1.03
    assert len(set(turns)) == len(set(scales)) == len(found) == 448
    assert abs(np.corrcoef(turns, scales)[0, 1]) < 0.2


def _variations(split: Split) -> dict[str, Variation | None]:
    return {sample.path: sample.variation for sample in split.train if sample.injected}


def test_repeats_depend_on_seed_and_own_category_only() -> None:
    def repeats(split: Split, ratio: float = 0.5, seed: int = 3) -> dict[str, Variation | None]:
        return _variations(contaminate(split, ratio, protocol="overlap_repeat", seed=seed)[0])

    one, both = _split({"b": (40, 6)}), _split({"a": (30, 4), "b": (40, 6)})
    few, many = repeats(one), repeats(both)
    assert few == {path: many[path] for path in many if path.startswith("b")}
    turned = Split(train=one.train, test=one.test[::-1])
    assert repeats(turned) == few
    assert repeats(one, seed=4) != few
    sets = [repeats(both, ratio) for ratio in (0.1, 0.2, 0.4, 0.8)]
    for small, large in pairwise(sets):
        assert small.items() < large.items()


def test_a_category_without_defects_cannot_repeat() -> None:
    _, report = contaminate(_split({"a": (10, 2), "b": (10, 0)}), 0.4, protocol="overlap_repeat")
    assert report.counts == {"a": 4, "b": 0}
    assert len(report.messages) == 1
    assert "4 defective images in category b but only 0 exist" in report.messages[0]


def test_a_repeat_takes_no_name_that_is_in_use() -> None:
    clean = _split({"a": (10, 1)})
    clean.train.append(replace(clean.train[0], path="a/test/hole/0#2"))
    split, _ = contaminate(clean, 0.2, protocol="overlap_repeat")
    assert len({sample.path for sample in split.train}) == len(split.train) == 13


def _list(folder: Path, split: Split, defects: int) -> Path:
    names = [sample.path for sample in split.train]
    names += [sample.path for sample in split.test if sample.is_anomaly][:defects]
    file = folder / "list.csv"
    file.write_text("filename,clsname\n" + "".join(f"{name},a\n" for name in names))
    return file


@pytest.mark.parametrize(("ratio", "asked"), [(None, None), (0, None), (0.3, 0.3)])
def test_split_file(tmp_path: Path, ratio: float | None, asked: float | None) -> None:
    clean = _split({"a": (10, 5)})
    file = _list(tmp_path, clean, 3)
    split, report = contaminate(clean, ratio, protocol="split_file", noise_file=file)
    assert [s.injected for s in split.train] == [False] * 10 + [True] * 3
    assert split.test == clean.test
    assert report.asked == asked
    assert report.protocol == "split_file"
    assert report.file == str(file)
    assert report.counts == {"a": 3}
    assert report.achieved_of_normal == pytest.approx(0.3)
    assert report.achieved_of_all == pytest.approx(3 / 13)
    assert report.messages == []


def test_split_file_beside_another_ratio(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clean = _split({"a": (10, 5)})
    file = _list(tmp_path, clean, 3)
    _, report = contaminate(clean, 0.9, protocol="split_file", noise_file=file)
    assert report.asked == 0.9
    assert report.achieved_of_normal == pytest.approx(0.3)
    difference = (
        f"noise_file={file} is used, although noise=0.9 asks for other numbers of defective "
        "images: a 3 instead of 5"
    )
    assert report.messages == [difference]
    assert [record.message for record in caplog.records] == report.messages


def test_split_file_may_name_images_left_out(tmp_path: Path) -> None:
    whole = _split({"a": (10, 5)})
    file = _list(tmp_path, whole, 3)
    less = replace(whole, train=whole.train[1:])
    follow = partial(contaminate, less, None, protocol="split_file", noise_file=file)
    with pytest.raises(UserError, match="1 for images that the data set does not have"):
        follow()
    split, _ = follow(left_out=whole.train[:1])
    assert len(split.train) == 12

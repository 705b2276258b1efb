"""Solar cells from a package: who trains, who tests, what is left out, and errors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from meds_plugin.data.readers import elpv
from meds_plugin.data.readers.elpv import read_elpv
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

COUNTS = {0.0: 10, 1 / 3: 3, 2 / 3: 2, 1.0: 5}  # of each type
FEW: dict[str, Any] = {"train_normal": 6, "test_normal": 3, "test_defective": 4}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a folder like the package's, with made-up cells."""
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    lines: list[str] = []
    for kind in ("mono", "poly"):
        for probability, count in COUNTS.items():
            for _ in range(count):
                name = f"images/cell{len(lines):04}.png"
                Image.new("L", (8, 8), len(lines)).save(folder / name)
                lines.append(f"{name}  {probability:.16f}  {kind}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_normal_cells_are_shared_and_defective_ones_tested(root: Path) -> None:
    split = read_elpv(root, **FEW)
    assert split.categories == ["mono", "poly"]
    for name in split.categories:
        train = [sample for sample in split.train if sample.category == name]
        test = [sample for sample in split.test if sample.category == name]
        assert [sample.defect for sample in train] == [None] * 6
        assert [sample.injected for sample in train] == [False] * 6
        assert sum(sample.is_anomaly for sample in test) == 4
        assert sum(not sample.is_anomaly for sample in test) == 3
        assert all(sample.extra["probability"] == "0" for sample in train)
        assert {s.extra["probability"] for s in test if s.is_anomaly} == {"1"}
        assert {s.label for s in test} == {"probability 0", "probability 1"}
        assert not {sample.path for sample in train} & {sample.path for sample in test}
    assert all(sample.mask is None for sample in split.test)
    assert any("CC BY-NC-SA" in note for note in split.notes)
    assert any("category mono: 5 cells" in note for note in split.notes)


def test_the_split_depends_on_its_own_seed_alone(root: Path) -> None:
    def names(seed: int) -> list[str]:
        return [sample.path for sample in read_elpv(root, "mono", seed=seed, **FEW).train]

    assert names(0) == names(0)
    assert names(0) != names(1)
    alone, both = read_elpv(root, ["poly"], **FEW), read_elpv(root, **FEW)
    own = [sample.path for sample in both.train if sample.category == "poly"]
    assert [sample.path for sample in alone.train] == own


def test_cells_between_are_trained_on_where_asked(root: Path) -> None:
    split = read_elpv(root, "mono", doubtful=True, **FEW)
    between = [s for s in split.train if s.extra["probability"] not in ("0", "1")]
    assert len(between) == 5
    assert {sample.injected for sample in between} == {None}
    assert not any(sample.is_anomaly for sample in between)
    assert not any("left out" in note for note in split.notes)


def test_a_lower_probability_makes_more_defects(root: Path) -> None:
    split = read_elpv(root, "mono", defect=0.5, **{**FEW, "test_defective": None})
    assert sum(sample.is_anomaly for sample in split.test) == 7


def test_null_takes_all_that_is_there(root: Path) -> None:
    split = read_elpv(root, "mono", train_normal=None, test_normal=3, test_defective=None)
    assert (len(split.train), len(split.test)) == (7, 3 + 5)


def test_the_installed_package_is_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = root.parent / "elpv_dataset"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('it is not imported')\n")
    root.rename(package / "data")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    split = read_elpv(None, "mono", **FEW)
    assert split.folders == (package / "data",)


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elpv, "find_spec", lambda _name: None)
    with pytest.raises(UserError, match=r"pip install 'meds-plugin\[elpv\]'"):
        read_elpv()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"defect": 0}, r"data\.defect=0 must be a probability"),
        ({"defect": "high"}, r"data\.defect='high'"),
        ({"doubtful": 1}, r"data\.doubtful must be true or false"),
        ({"categories": "glass"}, "glass"),
        ({"train_normal": 8, "test_normal": 3}, r"data\.train_normal=8: category mono has 7"),
        ({"test_defective": 6}, r"data\.test_defective=6: category mono has 5"),
        ({"test_normal": -1}, r"data\.test_normal must be a whole number"),
    ],
)
def test_wrong_input_is_named(root: Path, arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        read_elpv(root, **{**FEW, **arguments})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    ["images/a.png 1.0", "../../secret.png 0.0 mono", "images/a.png high mono", "a.png 2.0 mono"],
)
def test_a_damaged_table_is_named_by_its_line(root: Path, line: str) -> None:
    table = root / "labels.csv"
    table.write_text(f"images/cell0000.png 0.0 mono\n{line}\n")
    with pytest.raises(UserError, match=r"labels\.csv, line 2: "):
        read_elpv(root)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root=.*labels\.csv"):
        read_elpv(tmp_path)

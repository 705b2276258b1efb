from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from meds_plugin.data import BadFilesError, DataSettings, Problem, Sample, Split, prepare
from meds_plugin.utils.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path


def _split(root: Path, *, categories: tuple[str, ...] = ("a", "b")) -> Split:
    """Five normal training images, one normal and four defective test images a category."""
    rng = np.random.default_rng(0)

    def sample(name: str, defect: str | None = None) -> Sample:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(file)
        return Sample(name, name.split("/")[0], defect, file)

    split = Split(train=[], test=[])
    for name in categories:
        split.train.extend(sample(f"{name}/train/good/{n}.png") for n in range(5))
        split.test.append(sample(f"{name}/test/good/0.png"))
        split.test.extend(sample(f"{name}/test/hole/{n}.png", "hole") for n in range(4))
    return split


def _names(samples: list[Sample]) -> list[str]:
    return [sample.path for sample in samples]


def test_all_bad_files_stop_it_at_once(tmp_path: Path) -> None:
    split = _split(tmp_path)
    for name in ("a/train/good/1.png", "b/test/hole/2.png"):
        (tmp_path / name).write_bytes(b"")
    split.problems.append(Problem("c.png", "c.png is listed but not there"))
    with pytest.raises(BadFilesError, match=r"data\.on_error=skip") as caught:
        prepare(split, DataSettings())
    assert [problem.path for problem in caught.value.problems] == [
        "c.png",
        "a/train/good/1.png",
        "b/test/hole/2.png",
    ]
    assert all(problem.reason in str(caught.value) for problem in caught.value.problems)


def test_the_error_names_all_up_to_fifty() -> None:
    problems = [Problem(f"{n}.png", f"/data/{n}.png is empty") for n in range(52)]
    message = str(BadFilesError(problems[:50]))
    assert message.startswith("50 images cannot be used: /data/0.png is empty; /data/1.png is")
    assert all(problem.reason in message for problem in problems[:50])
    assert message.endswith(
        "/data/49.png is empty; repair or remove them, or leave them out with data.on_error=skip"
    )
    more = str(BadFilesError(problems))
    assert more.startswith("52 images cannot be used: ")
    assert "/data/49.png is empty; and 2 more, see bad_files.csv; repair or remove them" in more
    assert len(more.splitlines()) == 1
    twice = [Problem("a.png", "a.png is empty"), Problem("a.png", "its mask is empty")]
    assert str(BadFilesError(twice)).startswith("1 image cannot be used: ")


@pytest.mark.parametrize("check", [False, True])
def test_names_that_no_result_file_can_hold(tmp_path: Path, check: bool) -> None:
    split = _split(tmp_path, categories=("a",))
    wrong = os.fsdecode(b"caf\xe9.png")
    named = [replace(split.train[0], path=wrong), replace(split.train[1], category=wrong)]
    fine = replace(split.train[2], path="new\nline.png", category="naïve")
    with pytest.raises(BadFilesError) as caught:
        prepare(replace(split, train=[*named, fine]), DataSettings(check=check))
    problems = caught.value.problems
    assert [problem.path for problem in problems] == ["caf\\udce9.png", "a/train/good/1.png"]
    for problem in problems:
        assert "has a name that is not UTF-8" in problem.reason
        assert (problem.path + problem.reason).encode()


def test_bad_files_are_left_out_before_anything_is_drawn(tmp_path: Path) -> None:
    split = _split(tmp_path)
    (tmp_path / "a/test/hole/0.png").write_bytes(b"no image")
    (tmp_path / "a/train/good/4.png").unlink()
    prepared = prepare(split, DataSettings(noise=0.9, on_error="skip"))
    assert _names([*prepared.split.train, *prepared.split.test]).count("a/test/hole/0.png") == 0
    assert prepared.noise.counts == {"a": 3, "b": 4}  # 3 of 4 are left; 0.9 * 5 = 4.5 -> 4
    assert {problem.path for problem in prepared.skipped} == {
        "a/test/hole/0.png",
        "a/train/good/4.png",
    }
    assert "left out because they cannot be used: 2 images" in prepared.summary


def test_links_that_lead_out_are_bad_files_unless_allowed(tmp_path: Path) -> None:
    split = replace(_split(tmp_path / "root"), folders=(tmp_path / "root",))
    out = tmp_path / "root/a/train/good/0.png"
    out.rename(tmp_path / "elsewhere.png")
    out.symlink_to("../../../../elsewhere.png")
    with pytest.raises(BadFilesError) as caught:
        prepare(split, DataSettings())
    (problem,) = caught.value.problems
    assert problem.path == "a/train/good/0.png"
    assert f"leads outside data.root, to {tmp_path / 'elsewhere.png'}: " in problem.reason
    skipped = prepare(split, DataSettings(on_error="skip", check=False))
    assert "a/train/good/0.png" not in _names(skipped.split.train)
    assert [problem.path for problem in skipped.skipped] == ["a/train/good/0.png"]
    allowed = prepare(split, DataSettings(outside_links=True))
    assert "a/train/good/0.png" in _names(allowed.split.train)


def test_excluded_images_leave_the_training_set_only(tmp_path: Path) -> None:
    split = _split(tmp_path)
    settings = DataSettings(noise=0.4)
    before = prepare(split, settings)
    added = next(sample.path for sample in before.split.train if sample.injected)
    file = tmp_path / "drop.txt"
    file.write_text(f"a/train/good/0.png\n{added}\nnot/there.png\n")
    after = prepare(split, replace(settings, exclude=file))
    gone = {"a/train/good/0.png", added}
    assert _names(after.split.train) == [n for n in _names(before.split.train) if n not in gone]
    assert _names(after.split.test) == _names(before.split.test)
    assert "leaves out 2 training images" in after.summary
    assert before.noise.counts == {"a": 2, "b": 2}
    assert after.noise.counts == {"a": 1, "b": 2}
    assert after.noise.achieved_of_normal == 3 / 9
    assert "1 name of no training image here, first not/there.png" in after.summary


def test_a_category_must_keep_training_images(tmp_path: Path) -> None:
    split = _split(tmp_path)
    file = tmp_path / "drop.txt"
    file.write_text("\n".join(f"b/train/good/{n}.png" for n in range(5)))
    with pytest.raises(UserError, match="no training image is left in b"):
        prepare(split, DataSettings(exclude=file))
    with pytest.raises(UserError, match="there are no training images"):
        prepare(Split(train=[], test=split.test), DataSettings())


def test_the_summary_tells_what_was_found(tmp_path: Path) -> None:
    split = _split(tmp_path)
    copy = tmp_path / "a/train/good/0.png"
    (tmp_path / "b/test/good/0.png").write_bytes(copy.read_bytes())
    split.notes.append("category b: no masks")
    summary = prepare(split, DataSettings()).summary
    assert "7x9" in summary
    assert "category b: no masks" in summary
    assert "a/train/good/0.png" in summary
    assert "a leak" in summary


def test_files_are_not_opened_where_the_check_is_off(tmp_path: Path) -> None:
    split = _split(tmp_path)
    for sample in split.train:
        (tmp_path / sample.path).unlink()
    assert len(prepare(split, DataSettings(check=False)).split.train) == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_error": "ignore"}, "data.on_error must be stop or skip"),
        ({"noise": 1.5}, "noise must be in"),
        ({"noise_protocol": "split_file"}, "noise_file"),
        ({"noise_definition": "none"}, "noise_definition"),
        ({"check": "maybe"}, "data.check must be true or false, got 'maybe'"),
        ({"outside_links": 1}, "data.outside_links must be true or false, got 1"),
    ],
)
def test_wrong_settings(settings: dict[str, str | int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DataSettings(**settings)  # type: ignore[arg-type]

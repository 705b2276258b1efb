from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from meds_plugin.data.check import check_samples
from meds_plugin.data.image_faults import ImageFaults, find_faults
from meds_plugin.data.prepare import DataSettings, prepare
from meds_plugin.data.samples import Sample, Split
from tests.meds_plugin.faults.made_up import again, blurred, picture, scaled

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image


def _sample(name: str, image: Image.Image, **more: Any) -> Sample:
    return Sample(name, "nut", None, np.asarray(image), **more)


def _faults(split: Split) -> ImageFaults:
    return find_faults(split, check_samples([*split.train, *split.test]))


@pytest.fixture(scope="module")
def clean() -> Split:
    train = [_sample(f"train/{n}.png", picture(n)) for n in range(50)]
    return Split(train, [_sample(f"test/{n}.png", picture(100 + n)) for n in range(10)])


def test_a_clean_set_has_none(clean: Split) -> None:
    faults = _faults(clean)
    assert faults.groups == [*range(50)]
    assert not any(faults.issues)
    assert faults.lines == ["near-duplicates: none", "issues of training images: none"]
    assert _faults(Split([], [])).lines == faults.lines


def test_faults_put_into_a_set_are_found(clean: Split) -> None:
    added = [
        _sample("soft.png", blurred(picture(200))),
        _sample("night.png", scaled(picture(201), 0.2)),
        _sample("glare.png", scaled(picture(202), 3)),
        _sample("blank.png", picture(203).resize((1, 1)).resize((96, 96))),
        _sample("twin.png", again(picture(3), 1)),
        _sample("triplet.png", again(picture(3), 2)),
        _sample("more.png", blurred(picture(204))),
    ]
    leaked = _sample("test/again.png", again(picture(30), 1))
    faults = _faults(Split([*clean.train, *added], [*clean.test, leaked]))
    assert not any(faults.issues[:50])
    words = [("blurry",), ("dark",), ("overexposed",), ("low_information",), (), (), ("blurry",)]
    assert faults.issues[50:] == words
    assert faults.groups[50:] == [50, 51, 52, 53, 3, 3, 54]
    same, leak, issues = faults.lines
    assert same == "near-duplicates: 1 group of 3 training images, first train/3.png ~ twin.png"
    assert leak.endswith("training images, a leak, first train/30.png ~ test/again.png")
    assert issues.startswith("issues of training images: blurry 2 (first soft.png), dark 1 (")


def test_what_a_noise_protocol_made_is_told_apart(clean: Split) -> None:
    one = clean.test[0]
    injected = replace(one, defect="cut", injected=True)
    near = _sample("test/near.png", again(picture(100), 1))
    faults = _faults(Split([*clean.train, injected], [*clean.test, near]))
    assert faults.lines[:-1] == [
        "near-duplicates: 1 test image of injected images, first test/0.png ~ test/near.png"
    ]
    # Equal files are described elsewhere, but are one group.
    faults = _faults(Split([*clean.train, injected, replace(injected, path="again")], clean.test))
    assert faults.lines[0] == "near-duplicates: none"
    assert faults.groups[50:] == [50, 50]


def test_a_trait_of_the_set_is_said_once(clean: Split) -> None:
    dark = [_sample(f"{n}.png", scaled(picture(n), 0.1)) for n in range(30)]
    faults = _faults(Split(dark, []))
    assert not any(faults.issues)
    assert faults.lines[-1] == (
        "dark: most training images of nut, so only those that stand out are marked"
    )


def test_wrong_products_are_added(clean: Split) -> None:
    faults = _faults(clean)
    train = [replace(s, category="ab"[n % 2]) for n, s in enumerate(clean.train)]
    vectors = np.eye(2, dtype=np.float16)[np.arange(50) % 2]
    same = faults.with_wrong_products(train, vectors, np.ones(50, bool))
    assert (same.issues, same.lines) == (faults.issues, [])
    vectors[7] = vectors[8]
    found = faults.with_wrong_products(train, vectors, np.ones(50, bool))
    assert [n for n, words in enumerate(found.issues) if words == ("wrong_product",)] == [7]
    assert found.lines == ["training images that look like another category: 1, first train/7.png"]


def test_unchecked_images_have_unknown_faults(tmp_path: Path, clean: Split) -> None:
    prepared = prepare(clean, DataSettings(check=False))
    assert prepared.faults is None
    assert prepared.summary.endswith("identical files, near-duplicates, issues: not checked")
    checked = prepare(clean, DataSettings())
    assert checked.faults
    assert checked.summary.endswith("\n".join(checked.faults.lines))

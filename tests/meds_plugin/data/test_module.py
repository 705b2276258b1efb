from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from meds_plugin.data import AnomalyDataModule, DataSettings, read_mvtec
from meds_plugin.data.module import ManifestRow
from meds_plugin.data.samples import Sample, Split
from meds_plugin.utils.errors import UserError
from tests.conftest import SHARED

if TYPE_CHECKING:
    from pathlib import Path

PHOTOS = SHARED / "data" / "photo_textures"


def _split(normal: int = 10, defects: int = 5) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (normal + defects, 12, 12, 3))
    images = list(pixels.astype(np.uint8))
    mask = np.full((12, 12), 255, np.uint8)
    names = [f"a/test/hole/{n}" for n in range(defects)]
    return Split(
        train=[Sample(f"a/train/good/{n}", "a", None, images[n]) for n in range(normal)],
        test=[
            Sample("a/test/good/0", "a", None, images[0]),
            *(Sample(n, "a", "hole", i, mask) for n, i in zip(names, images[normal:], strict=True)),
        ],
    )


def _module(**changes: Any) -> AnomalyDataModule:
    arguments: dict[str, Any] = {"source": _split, "image_size": 8, "batch_size": 4}
    settings = {
        key: changes.pop(key)
        for key in [*changes]
        if key in {field.name for field in fields(DataSettings)}
    }
    return AnomalyDataModule(**{**arguments, **changes}, settings=DataSettings(**settings))


def test_setup_reads_once() -> None:
    calls: list[int] = []

    def source() -> Split:
        calls.append(1)
        return _split()

    module = _module(source=source, noise=0.3)
    assert not calls
    module.setup("fit")
    train, report = module.train, module.noise_report
    module.setup("test")
    module.setup()
    assert calls == [1]
    assert module.train is train
    assert module.noise_report is report
    assert report.counts == {"a": 3}
    assert (len(module.train), len(module.test)) == (13, 6)


def test_source_may_be_a_split() -> None:
    assert len(_module(source=_split(4, 2)).train) == 4


def test_loaders_give_all_images_in_order() -> None:
    module = _module(noise=0.3, crop=6)
    for loader, dataset in (
        (module.train_dataloader(), module.train),
        (module.test_dataloader(), module.test),
    ):
        batches = list(loader)
        assert batches[0]["image"].shape == (4, 3, 6, 6)
        assert torch.cat([batch["index"] for batch in batches]).tolist() == [*range(len(dataset))]
        images = torch.cat([batch["image"] for batch in batches])
        assert torch.equal(images, torch.stack([item["image"] for item in dataset]))  # type: ignore[attr-defined]


def test_loaders_leave_the_global_generator_alone() -> None:
    module = _module()
    before = torch.random.get_rng_state()
    list(module.train_dataloader())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_manifest_rows() -> None:
    module = _module(noise=0.3, seed=5)
    rows = module.manifest_rows()
    assert rows[0]._replace(digest=None) == ManifestRow("a/train/good/0", "a", injected=False)
    assert len({row.digest for row in rows}) == 13
    assert {row.digest for row in _module(check=False).manifest_rows()} == {None}
    assert [row.injected for row in rows] == [False] * 10 + [True] * 3
    assert all(row.path.startswith("a/test/hole/") for row in rows[10:])
    assert {row.injected for row in _module().manifest_rows()} == {None}
    other = _module(noise=0.3, seed=6).manifest_rows()
    assert other[:10] == rows[:10]
    assert other != rows


def test_no_overlap_reaches_the_test_set() -> None:
    module = _module(noise=0.3, noise_protocol="no_overlap")
    assert not {s.path for s in module.train.samples} & {s.path for s in module.test.samples}


def test_photo_textures_are_the_same_with_workers() -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"the photographs are not here: {PHOTOS}")
    first: list[torch.Tensor] = []
    for workers in (0, 2):
        module = AnomalyDataModule(
            source=partial(read_mvtec, PHOTOS, ["brick"]),
            image_size=64,
            crop=56,
            settings=DataSettings(noise=0.6, check=workers == 0),
            num_workers=workers,
        )
        batches = list(module.train_dataloader())
        assert sum(len(batch["index"]) for batch in batches) == 90
        assert module.train.samples[-1].path == "brick/test/stain/009.png"
        assert module.noise_report.counts == {"brick": 30}
        first.append(torch.cat([batch["image"] for batch in batches]))
    assert torch.equal(first[0], first[1])


def test_settings_reach_the_masks_and_images(tmp_path: Path) -> None:
    split = _split()
    hole = split.test[1]
    assert isinstance(hole.mask, np.ndarray)
    hole.mask[:] = 0
    hole.mask[4:8, 4:8] = 255
    plain, inverted = (_module(source=split, mask_values=v) for v in ("auto", "inverted"))
    first, second = plain.test.mask(1), inverted.test.mask(1)
    assert first is not None
    assert second is not None
    torch.testing.assert_close(first + second, torch.ones(8, 8))
    assert "note: 5 of 5 masks look inverted" in inverted.summary
    with pytest.raises(UserError, match=r"the mask of a/test/hole/0: an array has no transparency"):
        _module(source=split, mask_values="alpha").setup()
    Image.fromarray(np.full((12, 12), 1500, np.uint16)).save(tmp_path / "deep.png")
    split.train[0] = Sample("a/deep", "a", None, tmp_path / "deep.png")
    for value_range, level in {"auto": 93, "full": 5, (0, 3000): 127}.items():
        module = _module(source=split, value_range=value_range)
        assert np.asarray(module.train.rgb_image(0))[0, 0, 0] == level
        assert module.train[0]["image"].shape == (3, 8, 8)
    for wrong in ({"mask_values": "white"}, {"value_range": "wide"}):
        with pytest.raises(UserError, match=r"data\.(mask_values|range) must be"):
            _module(**wrong)


def test_check_finds_a_bad_file(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"")
    split = _split()
    split.test.append(Sample("a/test/hole/bad", "a", "hole", bad))
    with pytest.raises(UserError, match=r"bad.png is empty"):
        _module(source=split).setup()
    _module(source=split, check=False).setup()


def test_wrong_arguments() -> None:
    with pytest.raises(UserError, match=r"data.batch_size must be a whole number of at least 1"):
        _module(batch_size=0)
    with pytest.raises(UserError, match=r"data.num_workers must be a whole number of at least 0"):
        _module(num_workers=-1)
    with pytest.raises(UserError, match=r"noise must be in"):
        _module(noise=2).setup()
    with pytest.raises(UserError, match=r"there are no training images"):
        _module(source=Split(train=[], test=_split().test)).setup()


def test_there_may_be_no_test_images() -> None:
    module = _module(source=Split(train=_split().train, test=[]))
    assert len(module.test) == 0
    assert len(module.train) == 10


def test_names_must_be_unique() -> None:
    split = _split()
    split.train.append(split.train[0])
    with pytest.raises(ValueError, match="two training images are named a/train/good/0"):
        _module(source=split).setup()

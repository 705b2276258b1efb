"""New images scored with a finished run, from Python and from the command line."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import meds_plugin
from meds_plugin import predict
from meds_plugin.config.location import conf_dir
from meds_plugin.config.registry import register_detectors
from meds_plugin.encoders.normalization import Normalization
from meds_plugin.encoders.packaged_weights import packaged_weights
from meds_plugin.utils.errors import UserError
from tests.meds_plugin.data.test_damage import BAD, FINE, ODD
from tests.processes import start
from tests.test_run import rows
from tests.test_run_detectors import CODE, POINTS
from tests.trained import Trained, called, train

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL.(Tiff|Png)ImagePlugin")

QUIET = "progress=false"


@pytest.fixture(scope="module")
def cropped(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run whose detector sees the centre of its images only."""
    folder = tmp_path_factory.mktemp("cropped") / "run, 1"
    return train(folder, "noise=0.4", "selection.k=1", "data.image_size=48", "data.crop=32")


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run of a detector that has parts for each category and scores images itself."""
    hvq = ("backbone=hvq", "backbone.detector.classes=2", "backbone.detector.routing=label")
    return train(tmp_path_factory.mktemp("labelled") / "run", "noise=0.2", *hvq)


@pytest.fixture(scope="module")
def halved(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A run whose detector computes in bfloat16."""
    folder = tmp_path_factory.mktemp("halved") / "run"
    return train(folder, "noise=0.2", "trainer.precision=bf16-mixed")


@pytest.fixture
def copied(cropped: Trained, tmp_path: Path) -> Path:
    """A copy of a run that may be changed."""
    return Path(shutil.copytree(cropped.folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every kind of damaged and odd file, in two folders."""
    root = tmp_path_factory.mktemp("line 3")
    (root / "in").mkdir()
    for name, (content, _) in {**BAD, **FINE}.items():
        (root / name).write_bytes(content)
    for name, (make, _) in ODD.items():
        make(root / "in" / name)
    yield root
    (root / "in" / "pipe.png").unlink()


def predicted(
    run: Path, images: object, output: Path, capsys: pytest.CaptureFixture[str], *options: str
) -> tuple[int, str, str]:
    ask = (f"ckpt={run / 'model.ckpt'}", f"images={images}", f"output={output}", QUIET)
    return called(predict.main, capsys, *ask, *options)


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as file:
        return np.asarray(file)


@pytest.mark.parametrize("which", ["cropped", "labelled", "halved"])
def test_scores_and_maps_are_those_of_the_runs_evaluation(
    which: str, request: pytest.FixtureRequest
) -> None:
    run: Trained = request.getfixturevalue(which)
    predictor = meds_plugin.load(run.checkpoint)
    # In bfloat16 the size of a batch makes more of a difference; float32 would differ by more yet.
    close: dict[str, Any] = {"atol": 1e-6, "rtol": 1e-5}
    maps: dict[str, Any] = close
    if which == "halved":
        close, maps = {"atol": 0.0, "rtol": 3e-4}, {"atol": 0.0, "rtol": 5e-3}
    assert predictor.categories == ("gear", "weave")
    half = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bicubic")  # the default encoder's
    assert predictor.transform.normalization == half
    for category, samples in run.test.items():
        images = [np.asarray(sample.image) for sample in samples]
        found = predictor.predict(images, category=category, batch_size=3)
        torch.testing.assert_close(found.scores, run.scores[category], **close)
        torch.testing.assert_close(found.maps, run.maps[category], **maps)
        limit = found.thresholds[0]
        assert found.labels.tolist() == [float(s) > limit.image for s in found.scores]
        assert torch.equal(found.masks, found.maps.double() > limit.pixel)
        stored = json.loads((run.folder / "threshold.json").read_text())["categories"][category]
        assert (limit.image, limit.pixel) == (stored["image"], stored["pixel"])


def test_images_are_prepared_as_the_runs_encoder_was_told(tmp_path: Path) -> None:
    given = "encoder.normalization={mean:[0.2,0.3,0.4],interpolation:bilinear}"
    run = train(tmp_path / "run", given, "method=plain", "data.categories=[gear]")
    wanted = Normalization((0.2, 0.3, 0.4), (0.5, 0.5, 0.5), "bilinear")
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert Normalization(**metrics["protocol"]["normalization"]) == wanted
    predictor = meds_plugin.load(run.checkpoint)
    assert predictor.transform.normalization == wanted
    found = predictor.predict([np.asarray(sample.image) for sample in run.test["gear"]])
    torch.testing.assert_close(found.maps, run.maps["gear"], atol=1e-6, rtol=1e-5)


def test_thresholds_come_from_the_images_that_the_run_selected(cropped: Trained) -> None:
    stored = json.loads((cropped.folder / "threshold.json").read_text())
    ranking = rows(cropped.folder / "ranking.csv")
    for category in ("gear", "weave"):
        kept = [r for r in ranking if r["category"] == category and r["selected"] == "1"]
        dropped = [r for r in ranking if r["category"] == category and r["selected"] == "0"]
        assert dropped
        scores = stored["scores"][category]
        assert stored["categories"][category]["images"] == len(kept) == len(scores["image"])
        # So few that the threshold is the highest score.
        assert stored["categories"][category]["image"] == scores["image"][-1]
        assert stored["categories"][category]["pixel"] == scores["pixel"][-1]
    saved = torch.load(cropped.checkpoint, weights_only=True)
    assert saved["meds"]["categories"] == ["gear", "weave"]


def test_what_python_takes(cropped: Trained, tmp_path: Path) -> None:
    predictor = meds_plugin.load(cropped.folder)
    array = np.asarray(cropped.test["gear"][0].image)
    file = tmp_path / "a.png"
    Image.fromarray(array).save(file)
    wanted = predictor.predict(array)
    assert wanted.scores.shape == (1,)
    assert wanted.maps.shape == wanted.masks.shape == (1, 64, 64)
    prepared = predictor.preprocess(Image.fromarray(array))
    for images in (
        file,
        str(file),
        [file],
        (Image.open(file),),
        Image.open(file),
        array[None],
        prepared,
        prepared[None],
    ):
        found = predictor.predict(images)
        torch.testing.assert_close(found.maps, wanted.maps)
        torch.testing.assert_close(predictor.preprocess(images).view_as(prepared), prepared)
    assert prepared.shape == predictor.preprocess(str(file)).shape == (3, 32, 32)
    assert predictor.preprocess([file, array]).shape == (2, 3, 32, 32)
    grey = Image.fromarray(array).convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    torch.testing.assert_close(predictor.predict(grey).maps, predictor.predict(deep).maps)
    several = predictor.predict([file, array, grey], category=["gear", None, "weave"])
    torch.testing.assert_close(several.maps[:2], wanted.maps.expand(2, -1, -1))
    assert len({threshold.image for threshold in several.thresholds}) == 2


def test_predictions_come_batch_by_batch_and_images_are_read_only_then(cropped: Trained) -> None:
    predictor = meds_plugin.load(cropped.folder)
    arrays = [np.asarray(sample.image) for sample in cropped.test["gear"]][:5]
    taken: list[int] = []

    def given() -> Iterator[np.ndarray[Any, Any]]:
        for place, array in enumerate(arrays):
            taken.append(place)
            yield array

    found = []
    for part in predictor.predictions(given(), category="gear", batch_size=2):
        found.append(part)
        assert len(taken) == min(5, 2 * len(found))
    assert [len(part.scores) for part in found] == [2, 2, 1]
    whole = predictor.predict(arrays, category=["gear"] * 5, batch_size=2)
    assert torch.equal(torch.cat([part.maps for part in found]), whole.maps)
    assert torch.equal(torch.cat([part.labels for part in found]), whole.labels)
    assert tuple(limit for part in found for limit in part.thresholds) == whole.thresholds
    with pytest.raises(ValueError, match="zip"):
        list(predictor.predictions(arrays, category=["gear"] * 4))


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (torch.zeros(1, 3, 48, 48), r"\[B, 3, 32, 32\]"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "floating-point"),
        (torch.zeros(0, 3, 32, 32), "no images"),
        (np.zeros((8, 8), np.uint8), "images must be|got uint8"),
        (np.zeros((8, 8, 3), np.float32), "got float32"),
        (["/none.png"], "does not exist"),
        ([], "no images"),
        (7, "images must be files"),
    ],
)
def test_what_python_does_not_take(cropped: Trained, images: object, line: str) -> None:
    with pytest.raises(UserError, match=line):
        meds_plugin.load(cropped.checkpoint).predict(images)  # type: ignore[arg-type]


def test_thresholds_can_be_changed_without_training(cropped: Trained) -> None:
    predictor = meds_plugin.load(cropped.checkpoint)
    images = [np.asarray(sample.image) for sample in cropped.test["gear"]]
    stored = json.loads((cropped.folder / "threshold.json").read_text())["scores"]["gear"]
    half = predictor.predict(images, category="gear", false_alarm_rate=0.5)
    assert half.thresholds[0].image == stored["image"][(len(stored["image"]) + 2) // 2 - 1]
    own = predictor.predict(images, threshold=0.0, pixel_threshold=1e9)
    assert own.labels.all()
    assert not own.masks.any()
    one = predictor.predict(images, category="gear", threshold=0.5)
    assert one.thresholds[0].pixel == max(stored["pixel"])
    for wrong in ({"false_alarm_rate": 1.0}, {"threshold": float("nan")}):
        with pytest.raises(UserError, match="must be a"):
            predictor.predict(images, **wrong)  # type: ignore[arg-type]


def test_a_detector_with_parts_for_each_category_asks_for_it(labelled: Trained) -> None:
    predictor = meds_plugin.load(labelled.checkpoint)
    image = np.asarray(labelled.test["gear"][0].image)
    with pytest.raises(UserError, match="give category=NAME or by_directory=true; there are: gear"):
        predictor.predict(image)
    with pytest.raises(UserError, match="category=nut is not one of the model's: gear, weave"):
        predictor.predict(image, category="nut")
    with pytest.raises(UserError, match="category names 2 images, but there are 1"):
        predictor.predict(image, category=["gear", "gear"])
    gear, weave = (predictor.predict(image, category=name) for name in ("gear", "weave"))
    assert not torch.allclose(gear.maps, weave.maps)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_of_categories(
    cropped: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    names = cropped.write_test_images(tmp_path / "shots")
    out = tmp_path / "out"
    status, printed, err = predicted(
        cropped.folder,
        tmp_path / "shots",
        out,
        capsys,
        "by_directory=true",
        "batch_size=3",
        f"num_workers={workers}",
    )
    assert status == 0, err
    assert "20 images scored" in printed
    table = rows(out / "scores.csv")
    assert [row["path"] for row in table] == names
    wanted = torch.cat([cropped.scores["gear"], cropped.scores["weave"]])
    found = torch.tensor([float(row["score"]) for row in table])
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert [row["category"] for row in table] == ["gear"] * 10 + ["weave"] * 10
    assert all(
        int(r["label"]) == (float(r["score"]) > float(r["threshold"])) and not r["error"]
        for r in table
    )
    assert len({row["threshold"] for row in table}) == 2
    for kind, shape in (("heatmaps", (48, 48, 3)), ("masks", (48, 48))):
        files = sorted(p.relative_to(out / kind).as_posix() for p in (out / kind).rglob("*.png"))
        assert files == [f"{name}.png" for name in names]
        assert all(pixels(out / kind / file).shape == shape for file in files)
    # The crop has cut off the border: it is not judged.
    heatmap, mask = (pixels(out / k / "gear/00.png.png") for k in ("heatmaps", "masks"))
    assert not heatmap[:8].any()
    assert heatmap[8:40, 8:40].any(axis=2).all()
    assert set(np.unique(mask)) <= {0, 255}
    assert not mask[:8].any()


def test_heatmaps_have_one_scale_for_the_whole_run(
    cropped: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shots").mkdir()
    for place in (0, 5):
        Image.fromarray(np.asarray(cropped.test["weave"][place].image)).save(
            tmp_path / "shots" / f"{place}.png"
        )
    (tmp_path / "one").mkdir()
    shutil.copy(tmp_path / "shots" / "0.png", tmp_path / "one" / "0.png")
    scale = json.loads((cropped.folder / "threshold.json").read_text())["scale"]
    for name in ("shots", "one"):
        assert predicted(cropped.folder, tmp_path / name, tmp_path / f"{name}_out", capsys)[0] == 0
        summary = json.loads((tmp_path / f"{name}_out" / "summary.json").read_text())
        assert summary["scale"] == scale
    both, alone = (tmp_path / f"{name}_out/heatmaps/0.png.png" for name in ("shots", "one"))
    assert (pixels(both) == pixels(alone)).all()
    wide = ("scale=[0,1000]", "overlay=0.5", "masks=false", "threshold=0.5")
    assert predicted(cropped.folder, tmp_path / "one", tmp_path / "wide", capsys, *wide)[0] == 0
    assert not (tmp_path / "wide" / "masks").exists()
    assert rows(tmp_path / "wide" / "scores.csv")[0]["threshold"] == "0.5"
    dark = pixels(tmp_path / "wide/heatmaps/0.png.png")[10:38, 10:38]
    shown = pixels(tmp_path / "one" / "0.png")[10:38, 10:38]
    lowest = np.array([12, 10, 48])
    np.testing.assert_allclose(dark, shown / 2 + lowest / 2, atol=1.01)


def test_all_good_files_are_judged_and_all_bad_ones_listed(
    cropped: Trained, bad_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    ask = ("batch_size=7", "num_workers=2")
    status, printed, err = predicted(cropped.folder, bad_files, out, capsys, *ask)
    assert status == 0, err
    table = {row["path"]: row for row in rows(out / "scores.csv")}
    # An empty folder is no image, and a file that is not there cannot be found.
    odd = {f"in/{name}" for name in ODD} - {"in/folder.png", "in/removed.png"}
    odd = {name.encode("utf-8", "backslashreplace").decode() for name in odd}
    assert set(table) == {*BAD, *FINE, *odd}
    for name in FINE:
        assert (table[name]["error"], table[name]["label"] in "01") == ("", True)
        assert float(table[name]["score"]) > 0
        assert table[name]["label"]
    for name in {*BAD, *odd}:
        assert table[name]["error"].isprintable()
        assert len(table[name]["error"]) > 10
        assert not table[name]["score"] + table[name]["label"] + table[name]["threshold"]
    summary = json.loads((out / "summary.json").read_text())
    assert {entry["path"] for entry in summary["bad"]} == {*BAD, *odd}
    assert (summary["judged"], summary["images"]) == (len(FINE), len(table))
    assert f"{len(FINE)} images scored" in printed
    assert f"and {len(BAD) + len(odd) - 10} more" in printed
    assert "data.max_pixels" not in json.dumps(summary)
    heatmaps = list((out / "heatmaps").rglob("*.png"))
    assert len(heatmaps) == len(FINE)
    for name, (content, _) in FINE.items():
        (tmp_path / "f").write_bytes(content)
        with Image.open(tmp_path / "f") as image:
            sides = sorted(image.size)
        if len(name) < 100:
            assert sorted(pixels(out / "heatmaps" / f"{name}.png").shape[:2]) == sides
    assert not [path for path in out.rglob("*") if path.name.endswith(".tmp")]


def test_nothing_could_be_judged(
    cropped: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "shots").mkdir()
    (tmp_path / "shots" / "a.png").touch()
    status, _, err = predicted(cropped.folder, tmp_path / "shots", tmp_path / "out", capsys)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert "no image could be scored" in err
    assert "is empty (zero bytes)" in rows(tmp_path / "out" / "scores.csv")[0]["error"]


def test_an_image_in_no_folder_of_a_category_is_listed(
    labelled: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled.write_test_images(tmp_path / "shots")
    shutil.copy(tmp_path / "shots/gear/00.png", tmp_path / "shots/top.png")
    shutil.copytree(tmp_path / "shots/gear", tmp_path / "shots/bolt")
    ask = ("by_directory=true", "heatmaps=false", "masks=false")
    status, _, err = predicted(labelled.folder, tmp_path / "shots", tmp_path / "out", capsys, *ask)
    assert status == 0, err
    table = {row["path"]: row for row in rows(tmp_path / "out" / "scores.csv")}
    assert "no folder of a category of the model (gear, weave)" in table["top.png"]["error"]
    assert table["bolt/00.png"]["error"]
    wanted = float(labelled.scores["weave"][3])
    assert float(table["weave/03.png"]["score"]) == pytest.approx(wanted, rel=1e-5)
    pattern = f"{tmp_path}/shots/gear/0[01].png"
    ask = ("category=gear", "heatmaps=false", "overwrite=true")
    assert predicted(labelled.folder, pattern, tmp_path / "out", capsys, *ask)[0] == 0
    again = rows(tmp_path / "out" / "scores.csv")
    assert [row["path"] for row in again] == ["00.png", "01.png"]
    assert float(again[0]["score"]) == pytest.approx(float(labelled.scores["gear"][0]), rel=1e-5)


def test_it_warns_where_the_set_is_too_small_for_the_rate(
    cropped: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (20, 10)).save(file)
    _, printed, err = predicted(cropped.folder, file, tmp_path / "out", capsys)
    assert "1 image scored, " in printed
    assert "warning: false_alarm_rate=0.01 needs 99 clean training images" in err
    ask = ("false_alarm_rate=0.5", "overwrite=true")
    assert predicted(cropped.folder, file, tmp_path / "out", capsys, *ask)[2] == ""
    assert pixels(tmp_path / "out" / "heatmaps" / "a.png.png").shape == (10, 20, 3)


def test_results_may_lie_in_the_folder_of_images(
    cropped: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    for _ in range(2):
        ask = ("overwrite=true",)
        assert predicted(cropped.folder, tmp_path, tmp_path / "out", capsys, *ask)[0] == 0
        assert [row["path"] for row in rows(tmp_path / "out" / "scores.csv")] == ["a.png"]
    assert (
        "is the folder of the images"
        in predicted(cropped.folder, tmp_path, tmp_path, capsys, "overwrite=true")[2]
    )


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("images=/none",), "images=/none does not exist"),
        (("ckpt=/none/model.ckpt",), "ckpt=/none/model.ckpt: there is no such file"),
        (("category=nut",), "category=nut is not one of the model's: gear, weave"),
        (("category=gear", "by_directory=true"), "cannot be combined"),
        (("false_alarm_rate=2",), "false_alarm_rate must be a share"),
        (("threshold=high",), "threshold must be a number"),
        (("scale=[1,1]",), "scale must be [LOW, HIGH]"),
        (("scale=3",), "scale must be [LOW, HIGH]"),
        (("overlay=2",), "overlay must be a share"),
        (("batch_size=0",), "batch_size must be a whole number of at least 1"),
        (("num_workers=a",), "num_workers must be a whole number of at least 0"),
        (("masks=maybe",), "masks must be true or false"),
        (("max_pixels=0",), "max_pixels must be a number of pixels"),
        (("device=abacus",), "device=abacus is not available"),
        (("encoder.weights=/none.pth",), "encoder.weights=/none.pth: there is no such file"),
        (("treshold=1",), "'treshold=1' is not an option: give KEY=VALUE with one of ckpt, images"),
        (("output=",), "output is missing: python -m meds_plugin.predict ckpt="),
        (("scale=[",), "scale=[ cannot be read"),
    ],
)
def test_wrong_input_is_told_in_a_line(
    cropped: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    line: str,
) -> None:
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    status, _, err = predicted(
        cropped.folder, tmp_path / "a.png", tmp_path / "out", capsys, *options
    )
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert line in err
    assert not (tmp_path / "out").exists()


def test_help_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = called(predict.main, capsys, "--help")
    assert status == 0
    assert "false_alarm_rate" in out


def test_it_runs_as_a_module(tmp_path: Path) -> None:
    process = start("ckpt=none.ckpt", "images=none", "output=out", cwd=tmp_path, module="predict")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, out) == (2, "")
    assert err == "meds_plugin: images=none does not exist: give an image, a folder or a pattern\n"


# A run's files as they may come: incomplete, older, damaged, of a stranger.


def edited(folder: Path, old: str, new: str) -> None:
    file = folder / "config.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_a_configuration_calls_nothing_but_detectors(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited(copied, "_target_: backbones.dinomaly.Dinomaly", "_target_: os.mkdir")
    with pytest.raises(UserError, match=r"calls os.mkdir, which is not a data set"):
        meds_plugin.load(copied)
    edited(copied, "_target_: os.mkdir", "_target_: backbones.dinomaly.Dinomaly")
    encoder = "_target_: meds_plugin.encoders.build.build_encoder"
    edited(copied, encoder, "_target_: ${oc.env:MEDS_EVIL}")
    monkeypatch.setenv("MEDS_EVIL", "os.system")
    with pytest.raises(UserError, match=r"calls os.system"):
        meds_plugin.load(copied)
    edited(copied, "_target_: ${oc.env:MEDS_EVIL}", "_target_: meds_plugin.encoders.vit.ViTEncoder")
    with pytest.raises(UserError, match=r"calls meds_plugin.encoders.vit.ViTEncoder"):
        meds_plugin.load(copied)


def test_trust_lets_a_configuration_call_what_it_names(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_package.py").write_text("from backbones.dinomaly import Dinomaly as Own\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    edited(copied, "_target_: backbones.dinomaly.Dinomaly", "_target_: own_package.Own")
    with pytest.raises(UserError, match="give trust=true"):
        meds_plugin.load(copied)
    assert meds_plugin.load(copied, trust=True).categories == ("gear", "weave")


def test_a_checkpoint_is_never_unpickled(copied: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "called"),)

    torch.save({"state_dict": {}, "meds": Evil()}, copied / "model.ckpt")
    with pytest.raises(UserError, match="cannot be read as a checkpoint"):
        meds_plugin.load(copied)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("model.ckpt", b"no checkpoint", "cannot be read as a checkpoint"),
        ("model.ckpt", b"", "cannot be read as a checkpoint"),
        ("model.ckpt", None, "there is no such file"),
        ("config.yaml", None, "config.yaml is missing: give the folder of a run, or copy"),
        ("config.yaml", b"a: [", "is not a configuration of a run"),
        ("config.yaml", b"a: 1", "is not a configuration of a run"),
        ("threshold.json", b"{}", "is not a threshold file of a run"),
    ],
)
def test_files_that_are_missing_or_damaged(
    copied: Path, name: str, content: bytes | None, line: str
) -> None:
    if content is None:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(content)
    with pytest.raises(UserError, match=line):
        meds_plugin.load(copied)


def test_a_checkpoint_of_another_model_is_refused(copied: Path, labelled: Trained) -> None:
    edited(copied, "decoder_depth: 2", "decoder_depth: 3")
    with pytest.raises(UserError, match="the checkpoint lacks"):
        meds_plugin.load(copied)
    shutil.copy(labelled.checkpoint, copied / "model.ckpt")
    with pytest.raises(UserError, match="it is of another model"):
        meds_plugin.load(copied)


def test_other_frozen_weights_are_refused(copied: Path) -> None:
    edited(copied, "weights: null", "weights: random")
    with pytest.raises(UserError, match="other frozen weights"):
        meds_plugin.load(copied)


def test_the_encoders_weights_may_have_moved(copied: Path) -> None:
    edited(copied, "weights: null", "weights: /gone/lite0.pth")
    with pytest.raises(UserError, match="there is no such file"):
        meds_plugin.load(copied)
    own = packaged_weights("tf_efficientnet_lite0")
    assert own is not None
    assert meds_plugin.load(copied, encoder_weights=own).thresholds is not None


def test_a_run_that_has_stored_no_threshold_needs_one(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "threshold.json").unlink()
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    file, out = tmp_path / "a.png", tmp_path / "out"
    assert "give scale=[LOW,HIGH], or heatmaps=false" in predicted(copied, file, out, capsys)[2]
    lines = predicted(copied, file, out, capsys, "heatmaps=false")[2]
    assert "finish the run with resume=RUN, or give threshold= and pixel_threshold=" in lines
    ask = ("scale=[0,1]", "threshold=0", "pixel_threshold=0")
    assert predicted(copied, file, out, capsys, *ask)[0] == 0
    assert rows(out / "scores.csv")[0]["label"] == "1"


def test_a_memory_has_nothing_to_predict_with(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "method=memory", "data.categories=[gear]")
    assert not (run.folder / "threshold.json").exists()
    with pytest.raises(UserError, match="is of method=memory, which trains no detector"):
        meds_plugin.load(run.checkpoint)


def test_with_one_category_all_images_are_of_it(tmp_path: Path) -> None:
    run = train(tmp_path / "run", "method=plain", "data.categories=[gear]")
    predictor = meds_plugin.load(run.checkpoint)
    image = np.asarray(run.test["gear"][0].image)
    assert predictor.check_category(None) == "gear"
    assert float(predictor.predict(image).scores) == pytest.approx(
        float(run.scores["gear"][0]), rel=1e-5
    )
    stored = json.loads((run.folder / "threshold.json").read_text())
    assert stored["categories"]["gear"]["images"] == 8  # plain keeps all


def test_a_detector_of_another_package_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "site" / "toy_detectors-1.0.dist-info"
    info.mkdir(parents=True)
    (tmp_path / "site" / "toy_detectors.py").write_text(CODE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-detectors\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    register_detectors([conf_dir()])
    run = train(tmp_path / "run", "backbone=toy_peak", "data.categories=[gear]")
    images = [np.asarray(sample.image) for sample in run.test["gear"]]
    found = meds_plugin.load(run.checkpoint).predict(images)
    torch.testing.assert_close(found.scores, run.scores["gear"], atol=1e-6, rtol=1e-5)

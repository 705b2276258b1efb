"""Runs on tiles: results are of whole images, from training to prediction and export."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

import meds_plugin
from meds_plugin import AnomalyDataModule, evaluate, export, predict
from meds_plugin.data import ImageDataset, read_mvtec
from meds_plugin.evaluation.protocol import EvaluationProtocol
from meds_plugin.evaluation.tiled import finish_map
from meds_plugin.tiles import TileLayout, Tiling
from meds_plugin.utils.errors import UserError
from tests.ddp_ranks import Mirror
from tests.processes import run as start_run
from tests.test_run import read_config, rows
from tests.test_run_data import finished
from tests.toys import quiet_trainer, wrap
from tests.trained import called

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

TILED = ("data.tiles=32", "data.overlap=8", "encoder.layers=[1,2]", "encoder.pyramid.weights=null")
SIZES = ((80, 72), (80, 72), (56, 96), (80, 72))


def photograph(
    seed: int, size: tuple[int, int], *, spot: bool
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a large image and its mask, with a spot of five pixels."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 130, (*size, 3)).astype(np.uint8)
    mask = np.zeros(size, np.uint8)
    if spot:
        top, left = (int(rng.integers(2, side - 8)) for side in size)
        pixels[top : top + 5, left : left + 5] = (255, 30, 30)
        mask[top : top + 5, left : left + 5] = 255
    return pixels, mask


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A product whose images have two sizes."""
    root = tmp_path_factory.mktemp("large")
    for name, count in {"train/good": 6, "test/good": 3, "test/spot": 4}.items():
        for n in range(count):
            pixels, mask = photograph(50 * len(name) + n, SIZES[n % 4], spot="spot" in name)
            file = root / "plate" / name / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
            if "spot" in name:
                truth = root / "plate/ground_truth/spot" / f"{n}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(truth)
    return root


@pytest.fixture(scope="module")
def run(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiled") / "run"
    finished(folder, "data=mvtec", f"data.root={tree}", "noise=0.5", *TILED)
    return folder


def test_all_tables_are_of_whole_images(run: Path) -> None:
    manifest, ranking = rows(run / "manifest.csv"), rows(run / "ranking.csv")
    assert len(manifest) == len(ranking) == 9
    assert {row["path"] for row in ranking} == {row["path"] for row in manifest}
    last = rows(run / "selection.csv")[-1]
    assert sum(int(row["selected"]) for row in ranking) == int(last["kept"])
    assert int(last["contaminated"]) <= 3
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["mean"]["P-AP"] is not None
    assert metrics["ranking"]["auprc"] > 0.5
    assert (metrics["protocol"]["tiles"], metrics["protocol"]["tile_unit"]) == (32, "image")
    arrays = np.load(run / "embeddings.npz")
    assert arrays["image"].shape == arrays["peak"].shape == (9, arrays["image"].shape[1])
    page = (run / "review.html").read_text()
    assert '"height":64,"width":64' in page


def test_larger_maps_are_the_default(run: Path, tree: Path, tmp_path: Path) -> None:
    assert read_config(run).evaluation.resize == 32  # as the test asked
    finished(
        tmp_path / "run",
        "data=mvtec",
        f"data.root={tree}",
        "noise=0",
        *TILED,
        "evaluation.resize=null",
        "data.crop=16",
        "data.tile_unit=tile",
        "method=memory",
    )
    config = read_config(tmp_path / "run")
    assert (config.evaluation.resize, config.data.image_size, config.data.crop) == (1024, 16, None)


def test_prediction_gives_the_scores_of_the_evaluation(
    run: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, output = tree / "plate/test", tmp_path / "out"
    Image.new("RGB", (40, 20)).save(tmp_path / "small.png")
    arguments = (f"ckpt={run}/model.ckpt", f"output={output}", "num_workers=0", "batch_size=3")
    status, _, err = called(predict.main, capsys, *arguments, f"images={images}")
    assert status == 0, err
    found = {row["path"]: float(row["score"]) for row in rows(output / "scores.csv")}
    assert len(found) == 7
    for name in found:
        with Image.open(images / name) as image:
            size = image.size
        with Image.open(output / "heatmaps" / f"{name}.png") as heatmap:
            assert heatmap.size == size
    predictor = meds_plugin.load(run / "model.ckpt")
    one = predictor.predict(images / "spot/2.png")
    assert float(one.scores) == pytest.approx(found["spot/2.png"], abs=1e-6)
    assert one.maps.shape == (1, 32, 32)
    # The highest value lies on the spot.
    pixels, mask = photograph(50 * len("test/spot") + 2, SIZES[2], spot=True)
    top, left = divmod(int(one.maps[0].argmax()), 32)
    spot = np.argwhere(mask).mean(0) / mask.shape * 32
    assert abs(spot - [top, left]).max() < 10  # a patch
    assert torch.equal(predictor.predict(pixels).maps, one.maps)
    with pytest.raises(UserError, match="trained on tiles"):
        predictor.predict(torch.zeros(1, 3, 32, 32))
    status, _, err = called(
        predict.main, capsys, *arguments, f"images={tmp_path}/small.png", "overwrite=true"
    )
    assert status == 2
    assert "smaller than the tiles of 32 x 32" in err


def test_an_exported_detector_scores_images_by_the_helpers(
    run: Path, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.pt2"
    arguments = (f"ckpt={run}/model.ckpt", f"output={file}")
    status, _, err = called(export.main, capsys, *arguments)
    assert status == 0, err
    about = json.loads(file.with_suffix(".json").read_text())
    predictor = meds_plugin.load(run / "model.ckpt")
    image = tree / "plate/test/spot/1.png"
    tiles = predictor.preprocess(image)
    found = torch.export.load(file).module()(tiles)
    assert list(found["anomaly_map"].shape[1:]) == about["outputs"]["anomaly_map"]["shape"][1:]
    tiling = Tiling.of(about["tiles"]["size"], about["tiles"]["overlap"])
    layout = TileLayout(tiling, [SIZES[1]])
    side = about["postprocessing"]["resize"]
    stitched = layout.stitch(found["anomaly_map"], 0, side)
    evaluated, score = finish_map(stitched, EvaluationProtocol(resize=side), layout.tile_share(0))
    expected = predictor.predict(image)
    torch.testing.assert_close(evaluated, expected.maps[0], atol=1e-4, rtol=0)
    assert float(score) == pytest.approx(float(expected.scores), abs=1e-4)


def _count(batch: Any) -> int:
    return len(batch["scores"])


@pytest.mark.parametrize("unit", ["image", "tile"])
def test_lightnings_loops_see_whole_images(tree: Path, unit: Any) -> None:
    data = AnomalyDataModule(
        source=read_mvtec(tree),
        image_size=32,
        batch_size=4,
        tiling=Tiling.of(32, 8),
        tile_unit=unit,
    )
    model = wrap(Mirror(), distill_steps=3, finetune_steps=3, method="meds")
    model.protocol = EvaluationProtocol(resize=64)
    trainer = quiet_trainer(model.total_steps)
    trainer.fit(model, data)
    expected = evaluate(model, data, protocol=model.protocol)
    (found,) = trainer.test(model, data, verbose=False)
    assert {name: found[name] for name in expected["mean"]} == pytest.approx(expected["mean"])
    scores = model.training_scores()
    assert len(scores.score) == len(scores.selected) == 6
    assert model.stream is not None
    tiles = model.stream.images.reader.layout
    assert tiles is not None
    if unit == "image":
        # All tiles of an image are trained on, or none.
        for image in range(6):
            taken = torch.isin(torch.tensor(tiles.tiles([image])), model.stream.subset)
            assert bool(taken.all() | ~taken.any())
    batches = trainer.predict(model, data)
    assert batches is not None
    sizes = [*SIZES[:3], *SIZES]  # three good ones and four with a spot
    assert sum(map(_count, batches)) == len(TileLayout(Tiling.of(32, 8), sizes))
    limited = quiet_trainer(1, limit_test_batches=1)
    with pytest.raises(UserError, match="tiles were seen"):
        limited.test(model, data, verbose=False)


def test_a_file_is_decoded_once_in_order(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = AnomalyDataModule(source=read_mvtec(tree), image_size=32, tiling=Tiling.of(32, 8))
    data.setup()
    read: list[int] = []
    original = ImageDataset.rgb_image

    def counted(self: ImageDataset, index: int) -> Image.Image:
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(ImageDataset, "rgb_image", counted)
    tiles = [item["image"] for batch in data.train_dataloader() for item in [batch]]
    assert read == list(range(6))
    assert sum(map(len, tiles)) == len(data.train_dataloader().dataset)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("data.tiles=[100,100]", "smaller than data.tiles=[100, 100]"),
        ("data.tiles=x", "data.tiles must be"),
        ("data.overlap=99", "more than half"),
        ("data.tile_unit=patch", "data.tile_unit must be image or tile"),
        ("data.tiles=null", "data.overlap=8 needs data.tiles"),
        ("memory.unit=patch", "memory.unit=patch cannot count several images as one"),
    ],
)
def test_wrong_settings_are_refused_in_a_line(
    tree: Path, tmp_path: Path, override: str, word: str
) -> None:
    status, _, err = start_run(
        f"hydra.run.dir={tmp_path}/run",
        "data=mvtec",
        f"data.root={tree}",
        *TILED,
        override,
    )
    assert status == 2
    assert word in err.splitlines()[-1]

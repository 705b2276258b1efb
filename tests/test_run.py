"""The command line as a user meets it."""

from __future__ import annotations

import csv
import json
import re
import shutil
import signal
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from meds_plugin.review.build import rebuild_review
from meds_plugin.runs.read import read_embeddings
from tests.processes import run, start

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Refuse

TINY = (
    "data.categories=[weave,gear]",
    "data.image_size=32",
    "data.batch_size=4",
    "data.source.train_normal=8",
    "data.source.test_normal=4",
    "data.source.test_defective=6",
    "evaluation.resize=64",
    "steps.distill=10",
    "steps.finetune=14",
    "checkpoint_every=3",
    "trainer.accelerator=cpu",
    "figures=false",
)
METRICS = {"I-AUROC", "I-AP", "I-F1max", "P-AUROC", "P-AP", "P-F1max", "P-AUPRO"}


def read_config(folder: Path) -> DictConfig:
    config = OmegaConf.load(folder / "config.yaml")
    assert isinstance(config, DictConfig)
    return config


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One small run of the main job: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "a run, with = signs"
    status, out, err = run("noise=0.4", *TINY, "figures=true", f"hydra.run.dir='{folder}'")
    assert status == 0, err
    return folder, out


def test_metrics_hold_what_the_contract_says(finished: tuple[Path, str]) -> None:
    metrics = json.loads((finished[0] / "metrics.json").read_text())
    assert set(metrics["categories"]) == {"gear", "weave"}
    for values in (metrics["mean"], *metrics["categories"].values()):
        assert set(values) == METRICS
        assert all(0 <= value <= 1 for value in values.values())
    for name in METRICS:
        each = [values[name] for values in metrics["categories"].values()]
        assert metrics["mean"][name] == pytest.approx(sum(each) / 2)
    assert metrics["noise"]["asked"] == 0.4
    assert metrics["noise"]["achieved_of_normal"] == pytest.approx(6 / 16)
    assert metrics["noise"]["achieved_of_all"] == pytest.approx(6 / 22)
    assert 0 <= metrics["ranking"]["auprc"] <= 1
    assert 0 < metrics["ranking"]["inspection_depth"] <= 1
    parts = "data encode memory distill finetune score evaluate report"
    assert list(metrics["seconds"]) == parts.split()
    assert all(value > 0 for value in metrics["seconds"].values())
    assert metrics["protocol"]["steps"] == {"distill": 10, "finetune": 14}
    assert metrics["protocol"]["evaluation"]["mask_rule"] == "nonzero"
    half = [0.5, 0.5, 0.5]
    own = {"mean": half, "std": half, "interpolation": "bicubic"}
    assert metrics["protocol"]["normalization"] == own


def test_ranking_goes_from_most_to_least_suspicious(finished: tuple[Path, str]) -> None:
    ranking = rows(finished[0] / "ranking.csv")
    assert list(ranking[0]) == [
        "rank",
        "path",
        "category",
        "score",
        "selected",
        "injected",
        "memory",
        "distilled",
        "probability",
        "issues",
        "duplicate_group",
    ]
    scores = [float(row["score"]) for row in ranking]
    assert scores == sorted(scores, reverse=True)
    assert [int(row["rank"]) for row in ranking] == list(range(1, len(ranking) + 1))
    manifest = {row["path"]: row for row in rows(finished[0] / "manifest.csv")}
    assert {row["path"] for row in ranking} == set(manifest)
    assert all(row["injected"] == manifest[row["path"]]["injected"] for row in ranking)
    assert sum(int(row["injected"]) for row in ranking) == 6
    for last in rows(finished[0] / "selection.csv")[-2:]:
        members = [row for row in ranking if row["category"] == last["category"]]
        assert sum(int(row["selected"]) for row in members) == int(last["kept"])
        for row in members:
            assert int(row["selected"]) == (float(row["score"]) < float(last["threshold"]))


def test_embeddings_are_unit_vectors_of_every_image(finished: tuple[Path, str]) -> None:
    found = read_embeddings(finished[0], len(rows(finished[0] / "manifest.csv")))
    assert found is not None
    for part in found.values():
        np.testing.assert_allclose(np.linalg.norm(part, axis=1), 1, atol=1e-3)
    assert (np.abs(found["image"] - found["peak"]).max(1) > 0).all()


def test_the_review_page_shows_every_training_image(finished: tuple[Path, str]) -> None:
    page = finished[0] / "review.html"
    assert f"open {page} in a browser" in finished[1]
    found = re.search(r'id="data">(.*?)</script>', page.read_text())
    assert found is not None
    facts = json.loads(found[1])
    ranking = rows(finished[0] / "ranking.csv")
    assert facts["path"] == [row["path"] for row in ranking]
    assert all(facts["bytes"])
    assert facts["maps"]["low"] < facts["maps"]["high"]
    last = {row["category"]: row for row in rows(finished[0] / "selection.csv")}
    assert facts["thresholds"] == [float(last[name]["threshold"]) for name in ("gear", "weave")]
    before = page.read_bytes()
    rebuild_review(finished[0])
    assert page.read_bytes() == before


def test_selection_has_a_row_a_refresh_and_category(finished: tuple[Path, str]) -> None:
    selection = rows(finished[0] / "selection.csv")
    contract = ["step", "category", "kept", "threshold", "median", "mad"]
    assert list(selection[0]) == [*contract, "contaminated"]
    assert all(0 <= int(row["contaminated"]) <= int(row["kept"]) for row in selection)
    assert selection[0]["step"] == "10"
    for row in selection:
        multiple = (float(row["threshold"]) - float(row["median"])) / float(row["mad"])
        assert multiple == pytest.approx(2.0, abs=1e-3)
    pairs = [(int(row["step"]), row["category"]) for row in selection]
    assert len(pairs) == len(set(pairs))
    assert pairs == sorted(pairs)


def test_the_last_selection_counts_the_contaminated_images_kept(
    finished: tuple[Path, str],
) -> None:
    ranking = rows(finished[0] / "ranking.csv")
    for last in rows(finished[0] / "selection.csv")[-2:]:
        kept = [r for r in ranking if r["category"] == last["category"] and r["selected"] == "1"]
        assert sum(int(row["injected"]) for row in kept) == int(last["contaminated"])


def test_says_how_dirty_the_set_is_or_why_it_cannot(finished: tuple[Path, str]) -> None:
    report = json.loads((finished[0] / "contamination.json").read_text())
    assert set(report) == {"categories", "all"}
    for name in ("gear", "weave"):
        row = report["categories"][name]
        assert row["images"] == 11
        assert (row["estimate"], row["low"], row["high"]) == (None, None, None)
        assert "too few" in row["reason"]
    assert report["all"]["images"] == 22
    assert "no estimate for gear, weave" in finished[1]
    assert all(row["probability"] == "" for row in rows(finished[0] / "ranking.csv"))


def test_figures_are_drawn_and_their_data_is_kept(finished: tuple[Path, str]) -> None:
    folder, out = finished
    pytest.importorskip("matplotlib", reason="the extra plots is not installed")
    names = {"scores", "selection", "tiles", "inspection"}
    assert {path.name for path in (folder / "figures").iterdir()} == {f"{n}.png" for n in names}
    assert "4 figures are in" in out
    with np.load(folder / "examples.npz", allow_pickle=False) as kept:
        assert kept["images"].shape == (6, 32, 32, 3)
        assert kept["masks"].shape == (6, 32, 32)
        assert kept["maps"].shape == (6, 64, 64)
        assert [bool(mask.any()) for mask in kept["masks"]] == [True, True, False] * 2
        assert kept["scale"][0] < kept["scale"][1]


def test_checkpoint_loads_without_pickle_and_is_small(finished: tuple[Path, str]) -> None:
    saved = torch.load(finished[0] / "model.ckpt", weights_only=True)
    assert saved["meds"]["stage"] == "finetune"
    assert not any("encoder" in name for name in saved["state_dict"])


def test_config_is_complete_and_resolved(finished: tuple[Path, str]) -> None:
    config = read_config(finished[0])
    assert config["noise"] == 0.4
    assert config["encoder"]["image_size"] == [32, 32]
    assert "${" not in (finished[0] / "config.yaml").read_text()


def test_prints_a_table_and_where_everything_is(finished: tuple[Path, str]) -> None:
    folder, out = finished
    for word in ("gear", "weave", "mean", "I-AUROC", "AUPRC", str(folder)):
        assert word in out


def test_a_finished_run_is_left_as_it_is(finished: tuple[Path, str]) -> None:
    folder = finished[0]
    before = {path: path.read_bytes() for path in folder.glob("*.[cjm]*")}
    status, out, err = run(f"resume='{folder}'", cwd=folder.parent)
    assert status == 0, err
    assert "finished" in out + err
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not (folder.parent / "outputs").exists()


def test_a_folder_that_holds_a_run_is_not_overwritten(finished: tuple[Path, str]) -> None:
    status, _, err = run("noise=0.1", *TINY, f"hydra.run.dir='{finished[0]}'")
    assert status == 2
    assert "holds a run already" in err


def results(folder: Path) -> tuple[dict[str, torch.Tensor], str, str, dict[str, Any]]:
    state = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    metrics = json.loads((folder / "metrics.json").read_text())
    return (
        state,
        (folder / "ranking.csv").read_text(),
        (folder / "selection.csv").read_text(),
        {key: metrics[key] for key in ("mean", "categories", "ranking", "noise")},
    )


@pytest.mark.parametrize(
    ("stage", "cache"),
    [
        ("before the first checkpoint", "cache.gb=4"),
        ("distill", "cache.gb=4"),
        ("finetune", "cache.gb=4"),
        ("distill", "cache.gb=1e-9"),  # encodings go to files, which the resumed run finds
    ],
)
def test_a_killed_run_that_is_resumed_ends_like_one_left_alone(
    finished: tuple[Path, str], tmp_path: Path, stage: str, cache: str
) -> None:
    folder = tmp_path / "run"
    process = start("noise=0.4", *TINY, cache, f"hydra.run.dir={folder}")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if stage == "before the first checkpoint" and (folder / "config.yaml").exists():
            break
        if (folder / "model.ckpt").exists():
            saved = torch.load(folder / "model.ckpt", weights_only=True)
            if saved["global_step"] >= {"distill": 3, "finetune": 15}.get(stage, 0):
                break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "metrics.json").exists()
    assert (folder / "cache").exists() == (cache == "cache.gb=1e-9")
    status, _, err = run(f"resume={folder}")
    assert status == 0, err
    assert not (folder / "cache").exists()
    ours, whole = results(folder), results(finished[0])
    for key, value in whole[0].items():
        assert torch.equal(value, ours[0][key]), key
    assert ours[1:] == whole[1:]


def test_the_number_of_workers_changes_no_result(
    finished: tuple[Path, str], tmp_path: Path
) -> None:
    status, _, err = run(
        "noise=0.4", *TINY, "data.num_workers=2", "cache.gb=0", f"hydra.run.dir={tmp_path / 'r'}"
    )
    assert status == 0, err
    ours, whole = results(tmp_path / "r"), results(finished[0])
    for key, value in whole[0].items():
        torch.testing.assert_close(value, ours[0][key], atol=1e-5, rtol=0)
    status, _, err = run("noise=0.4", *TINY, "cache.gb=0", f"hydra.run.dir={tmp_path / 's'}")
    assert status == 0, err
    alone = results(tmp_path / "s")
    assert all(torch.equal(value, alone[0][key]) for key, value in ours[0].items())
    assert ours[1:] == alone[1:]


@pytest.mark.parametrize("method", ["plain", "memory", "distilled"])
def test_the_other_methods_write_the_same_files(tmp_path: Path, method: str) -> None:
    folder = tmp_path / "run"
    status, _, err = run(f"method={method}", "noise=0.2", *TINY, f"hydra.run.dir={folder}")
    assert status == 0, err
    ranking = rows(folder / "ranking.csv")
    assert all(row["selected"] == "1" for row in ranking)
    assert all((row["memory"] == "") == (method == "plain") for row in ranking)
    assert rows(folder / "selection.csv") == []
    metrics = json.loads((folder / "metrics.json").read_text())
    assert all(value is not None for value in metrics["mean"].values())
    assert {path.name for path in folder.iterdir()} >= {
        "metrics.json",
        "ranking.csv",
        "manifest.csv",
        "selection.csv",
        "model.ckpt",
        "config.yaml",
    }


# Wrong input: status 2, one line that names the place and the remedy, no traceback.


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small valid tree in MVTec's layout."""
    rng = np.random.default_rng(0)

    def picture(path: Path, size: int = 32) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (size, size, 3), dtype=np.uint8)).save(path)

    root = tmp_path / "tree"
    for i in range(3):
        picture(root / f"nut/train/good/{i}.png")
        picture(root / f"nut/test/good/{i}.png")
        picture(root / f"nut/test/bent/{i}.png")
        mask = root / f"nut/ground_truth/bent/{i}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 32), 255, np.uint8)).save(mask)
    return root


def test_refusals_end_the_process_with_status_two(tmp_path: Path) -> None:
    status, _, err = run(
        "data=mvtec", f"data.root={tmp_path / 'none'}", f"hydra.run.dir={tmp_path / 'run'}"
    )
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert str(tmp_path / "none") in err


def mvtec(tree: Path) -> tuple[str, ...]:
    return ("data=mvtec", f"data.root={tree}", "data.image_size=32", "noise=0.3")


def test_no_such_root(refuse: Refuse, tmp_path: Path) -> None:
    line = refuse("data=mvtec", f"data.root={tmp_path / 'none'}")
    assert str(tmp_path / "none") in line
    assert "data.root" in line


def test_root_missing(refuse: Refuse) -> None:
    assert "data.root=DIR" in refuse("data=mvtec")


def test_empty_category(refuse: Refuse, tree: Path) -> None:
    shutil.rmtree(tree / "nut" / "train" / "good")
    (tree / "nut" / "train" / "good").mkdir()
    assert "nut" in refuse(*mvtec(tree))


def test_unknown_category(refuse: Refuse, tree: Path) -> None:
    line = refuse(*mvtec(tree), "data.categories=[bolt]")
    assert "bolt" in line
    assert "nut" in line


def test_unknown_synthetic_category(refuse: Refuse) -> None:
    assert "weave" in refuse("data.categories=[bolt]")


def test_no_defects_to_contaminate_with(refuse: Refuse, tree: Path) -> None:
    shutil.rmtree(tree / "nut" / "test")
    assert "noise=null" in refuse(*mvtec(tree))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\nbroken"])
def test_unreadable_image(refuse: Refuse, tree: Path, content: bytes) -> None:
    bad = tree / "nut" / "train" / "good" / "1.png"
    bad.write_bytes(content)
    assert str(bad) in refuse(*mvtec(tree))


def test_mask_of_another_size(refuse: Refuse, tree: Path) -> None:
    bad = tree / "nut" / "ground_truth" / "bent" / "2_mask.png"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(bad)
    line = refuse(*mvtec(tree))
    assert str(bad) in line
    assert re.search(r"16\s*x\s*16", line)


@pytest.mark.parametrize("noise", ["1", "-0.1", "many"])
def test_noise_out_of_range(refuse: Refuse, noise: str) -> None:
    assert f"noise must be in [0, 1), got {noise}" in refuse(f"noise={noise}").replace("'", "")


def test_image_size_that_is_no_multiple_of_the_stride(refuse: Refuse) -> None:
    line = refuse("data.image_size=60")
    assert "data.image_size" in line
    assert "60 -> 32 or 64" in line


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("nois=0.4", "nois is not a key: did you mean noise?"),
        ("+memory.ratoi=0.1", "memory.ratoi is not a key: did you mean memory.ratio?"),
        ("+trainer.devicess=2", "trainer.devicess is not a key: did you mean trainer.devices?"),
        ("+backbone.optimizer.foo=1", "backbone.optimizer.foo is not a key: backbone.optimizer"),
        ("steps=100", "steps is a section"),
        ("--noise=0.4", "settings have no dashes, as in noise=0.4"),
        ("backbone=resnet", "backbone=resnet does not exist: choose from anomalib, dinomaly, hvq"),
        ("encoder=resnet", "efficientnet_lite0, efficientnet_lite1"),
        ("backbone=entry_point", "choose from anomalib, dinomaly, hvq"),
        ("method=best", "method"),
        ("memory.ratio=0", "memory.ratio"),
        ("encoder.weights=/no/such/file.pth", "/no/such/file.pth"),
        ("encoder.normalization={std:[1,0,1]}", "encoder.normalization: std must be above 0"),
        ("+encoder.pyramid.strid=8", "encoder.pyramid has no strid"),
        ("encoder.layers=[1,2]", "encoder.pyramid.weights=[1, 1, 1, 0.5] must be one for each"),
        ("backbone.detector.width=0", "backbone.detector.width must be"),
        ("resume=/no/such/run", "/no/such/run"),
        ("trainer.devices=none", "trainer"),
        ("trainer.accelerator=tpu", "trainer"),
        ("trainer.precision=bf16-true", "trainer.precision"),
        ("trainer.limit_train_batches=0.5", "trainer.limit_train_batches=0.5"),
        ("checkpoint_every=0", "checkpoint_every"),
        ("distillation.loss=huber", "distillation.loss"),
        ("selection.top=5", "selection.top"),
        ("memory.ratio=abc", "memory.ratio"),
        ("cache.gb=null", "cache.gb"),
        ("review=perhaps", "review must be true or false"),
    ],
)
def test_wrong_settings(refuse: Refuse, override: str, word: str) -> None:
    assert word in refuse(override)


def test_a_download_that_fails_names_the_way_out(
    refuse: Refuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        msg = "cannot reach the hub"
        raise OSError(msg)

    monkeypatch.setattr("timm.models._builder.load_pretrained", offline)
    line = refuse("encoder=dinov2_reg_small")
    assert "encoder.weights=FILE" in line


def test_a_run_folder_that_cannot_be_written(refuse: Refuse, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    assert "hydra.run.dir=DIR" in refuse()


def test_a_run_whose_images_changed_is_not_resumed(tree: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = ("steps.distill=3", "steps.finetune=3", "data.batch_size=2", "evaluation.resize=32")
    relative = f"data.root={tree.name}"
    status, _, err = run(
        "data=mvtec",
        relative,
        "data.image_size=32",
        "noise=0.3",
        *settings,
        "trainer.max_steps=2",
        "trainer.accelerator=cpu",
        f"hydra.run.dir={folder}",
        cwd=tree.parent,
    )
    assert status == 0, err
    assert torch.load(folder / "model.ckpt", weights_only=True)["global_step"] == 2
    manifest = (folder / "manifest.csv").read_text()
    good = tree / "nut" / "train" / "good"
    (good / "2.png").rename(good / "0a.png")
    status, _, err = run(f"resume={folder}", "trainer.max_steps=6")
    assert status == 2
    assert "no longer those of the run (nut/train/good/2.png is missing, nut/tr" in err
    assert (folder / "manifest.csv").read_text() == manifest
    (good / "0a.png").rename(good / "2.png")
    content = (good / "2.png").read_bytes()
    (good / "2.png").write_bytes((good / "1.png").read_bytes())
    status, _, err = run(f"resume={folder}", "trainer.max_steps=6")
    assert status == 2
    assert "no longer those of the run (nut/train/good/2.png has different content): restore" in err
    (good / "2.png").write_bytes(content)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("\nseed: 0\n", "\nseed: 1\n"))
    status, _, err = run(f"resume={folder}", "trainer.max_steps=6")
    assert status == 2
    assert "config.yaml was edited after the training began (" in err
    assert "seed: 0, now 1): undo that, or start a new run" in err
    (folder / "config.yaml").write_text(config.replace("review: true", "review: false"))
    status, _, err = run(f"resume={folder}", "trainer.max_steps=6")
    assert status == 0, err
    assert torch.load(folder / "model.ckpt", weights_only=True)["global_step"] == 6
    assert read_config(folder).trainer.max_steps == 2


def test_resume_takes_nothing_but_the_trainer_beside_it(finished: tuple[Path, str]) -> None:
    status, _, err = run(f"resume='{finished[0]}'", "noise=0.1")
    assert status == 2
    assert "leave out noise=0.1" in err

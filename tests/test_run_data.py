"""The command line on data as users have it: folders, tables, lists, views, damaged files."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from meds_plugin.review.decisions import apply_decisions
from tests.processes import run
from tests.test_run import METRICS, read_config, rows

if TYPE_CHECKING:
    from pathlib import Path

SHORT = (
    "data.image_size=32",
    "data.batch_size=4",
    "evaluation.resize=32",
    "steps.distill=4",
    "steps.finetune=4",
    "trainer.accelerator=cpu",
    "figures=false",
    "trainer.enable_progress_bar=false",
)
FILES = {
    "config.yaml",
    "manifest.csv",
    "metrics.json",
    "model.ckpt",
    "ranking.csv",
    "selection.csv",
}


def picture(file: Path, *, level: int | None = None) -> None:
    """Write noise, or a mask of one level."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(sum(map(ord, str(file.name) + file.parent.name)))
    pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
    if level is not None:
        pixels = np.full((32, 32, 3), level, np.uint8)
    Image.fromarray(pixels).save(file)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two products in MVTec's layout."""
    root = tmp_path / "tree"
    for name in ("nut", "bolt"):
        for i in range(6):
            picture(root / f"{name}/train/good/{i}.png")
        for i in range(3):
            picture(root / f"{name}/test/good/{i}.png")
            picture(root / f"{name}/test/bent/{i}.png")
            picture(root / f"{name}/ground_truth/bent/{i}_mask.png", level=255 * (i > 0) or 200)
    return root


def finished(folder: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    status, out, err = run(*SHORT, *overrides, f"hydra.run.dir={folder}")
    assert status == 0, err
    assert {path.name for path in folder.iterdir()} >= FILES
    metrics: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return metrics, out


def test_a_folder_of_unsorted_images_is_trained_on_and_ranked(tmp_path: Path) -> None:
    root = tmp_path / "line 3"
    for name in ("a.png", "shift 1/b.png", "shift 1/camera/c.png", "shift 2/ä.png", "z.png"):
        picture(root / name)
    (root / "notes.txt").write_text("no image")
    metrics, out = finished(tmp_path / "run", "data=folder", f"data.root={root}")
    ranking = rows(tmp_path / "run" / "ranking.csv")
    assert {row["path"] for row in ranking} == {
        "a.png",
        "shift 1/b.png",
        "shift 1/camera/c.png",
        "shift 2/ä.png",
        "z.png",
    }
    assert {row["injected"] for row in ranking} == {""}
    assert metrics["noise"]["asked"] is None
    assert metrics["mean"] == dict.fromkeys(METRICS)
    assert set(metrics["skipped"]["line 3"].values()) == {"there are no test images"}
    assert "no test images: no test metrics" in out
    assert "notes.txt" in out


def test_bad_files_stop_it_or_are_left_out_and_listed(tree: Path, tmp_path: Path) -> None:
    (tree / "nut/train/good/1.png").write_bytes(b"")
    (tree / "bolt/test/bent/2.png").write_text("no image")
    ask = ("data=mvtec", f"data.root={tree}", "noise=0.3")
    status, _, err = run(*SHORT, *ask, f"hydra.run.dir={tmp_path / 'stopped'}")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    bad = {"nut/train/good/1.png", "bolt/test/bent/2.png"}
    assert all(name in err for name in bad)
    assert {row["path"] for row in rows(tmp_path / "stopped" / "bad_files.csv")} == bad

    _, out = finished(tmp_path / "run", *ask, "data.on_error=skip", "review=false")
    assert not (tmp_path / "run" / "review.html").exists()
    assert {row["path"] for row in rows(tmp_path / "run" / "skipped.csv")} == bad
    assert "left out because they cannot be used: 2 images" in out
    assert not bad & {row["path"] for row in rows(tmp_path / "run" / "manifest.csv")}


def test_odd_and_damaged_files_are_each_read_or_listed(tmp_path: Path) -> None:
    root = tmp_path / "line 3"
    fine = {"a b.png", "it's.png", 'say "hi".png', "ä 漢字.png", "two\nlines.png", "car\rriage.png"}
    for name in {*fine, "../secret.png", "cut.png"}:
        picture(root / name)
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:90])
    (root / "empty.jpg").touch()
    (root / "text.png").write_text("no image")
    (root / "out.png").symlink_to("../secret.png")
    (root / "dangling.png").symlink_to("nowhere.png")
    (root / "circle.png").symlink_to("circle.png")
    (root / "mounted").symlink_to("/nowhere/else")
    (root / "up").symlink_to("..")
    bad = {"cut.png", "empty.jpg", "text.png", "out.png", "dangling.png", "circle.png", "mounted"}
    ask = ("data=folder", f"data.root={root}", "method=memory")
    status, _, err = run(*SHORT, *ask, f"hydra.run.dir={tmp_path / 'stopped'}")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert all(f"{root / name} " in err for name in bad)
    assert {row["path"] for row in rows(tmp_path / "stopped" / "bad_files.csv")} == bad

    _, out = finished(tmp_path / "run", *ask, "data.on_error=skip")
    for name, paths in {"skipped": bad, "manifest": fine, "ranking": fine}.items():
        assert {row["path"] for row in rows(tmp_path / "run" / f"{name}.csv")} == paths
    assert "ignored links to folders above them: 1, first up" in out


def test_a_table_names_nothing_outside_its_root(tree: Path, tmp_path: Path) -> None:
    picture(tmp_path / "secret.png")
    wrong = ["../secret.png", str(tmp_path / "secret.png"), "nut/../../secret.png"]
    table = tree / "images.csv"
    table.write_text("\n".join(["path", "nut/train/good/0.png", *wrong]))
    ask = ("data=csv", f"data.file={table}", f"hydra.run.dir={tmp_path / 'run'}")
    status, _, err = run(*SHORT, *ask)
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    for number, name in enumerate(wrong, start=3):
        assert f"row {number}: {name} leads outside {tree}" in err


def test_a_reviews_decisions_leave_images_out(tree: Path, tmp_path: Path) -> None:
    ask = ("data=mvtec", f"data.root={tree}", "noise=0.5", "method=memory")
    finished(tmp_path / "first", *ask)
    ranked = [row["path"] for row in rows(tmp_path / "first" / "ranking.csv")]
    decisions = tmp_path / "decisions.csv"
    decisions.write_text(f"path,decision\n{ranked[0]},drop\n{ranked[1]},keep\n{ranked[2]},\n")
    applied = apply_decisions(tmp_path / "first", decisions)
    status, out, err = run(*shlex.split(applied.command)[3:])
    assert status == 0, err
    left = {row["path"] for row in rows(applied.target / "manifest.csv")}
    assert left == set(ranked[1:])
    one, two = (read_config(folder) for folder in (tmp_path / "first", applied.target))
    assert two.data.pop("exclude") == str(applied.file)
    assert one.data.pop("exclude") is None
    assert one == two
    assert "mean change" in out
    compared = rows(applied.target / "before_after.csv")
    assert {row["category"] for row in compared} == {"bolt", "mean", "nut"}


def test_a_split_file_says_what_is_trained_on(tree: Path, tmp_path: Path) -> None:
    listed = ["nut/train/good/0.png", "nut/train/good/4.png", "nut/test/bent/1.png"]
    listed += [f"bolt/train/good/{i}.png" for i in (5, 2, 3)]
    file = tmp_path / "list.csv"
    file.write_text("filename,clsname\n" + "".join(f"{n},{n.split('/')[0]}\n" for n in listed))
    metrics, out = finished(
        tmp_path / "run",
        "data=mvtec",
        f"data.root={tree}",
        "noise_protocol=split_file",
        f"noise_file={file}",
    )
    manifest = rows(tmp_path / "run" / "manifest.csv")
    assert [row["path"] for row in manifest] == listed
    assert [row["injected"] for row in manifest] == ["0", "0", "1", "0", "0", "0"]
    assert metrics["noise"]["achieved_of_normal"] == pytest.approx(1 / 5)
    assert f"noise=from {file}" in out


def test_a_table_of_images(tree: Path, tmp_path: Path) -> None:
    lines = ["path;split;label;category;line"]
    lines += [f"nut/train/good/{i}.png;train;;nut;3" for i in range(5)]
    lines += [f"nut/test/good/{i}.png;test;PASS;nut;3" for i in range(3)]
    lines += [f"nut/test/bent/{i}.png;test;bent;nut;4" for i in range(3)]
    table = tree / "images.csv"
    table.write_text("\n".join(lines))
    metrics, out = finished(tmp_path / "run", "data=csv", f"data.file={table}")
    assert "normal: PASS 3 (test); defective: bent 3 (test); unknown: 5 (train)\n" in out
    assert metrics["mean"]["I-AUROC"] is not None
    assert metrics["mean"]["P-AUROC"] is None
    assert metrics["skipped"]["nut"]["P-AP"] == "there are no masks"
    assert len(rows(tmp_path / "run" / "manifest.csv")) == 5


def test_a_table_of_doubtful_labels(tree: Path, tmp_path: Path) -> None:
    lines = ["image_path,subset,Label"]
    lines += [f"nut/train/good/{i}.png,train,good" for i in range(5)]
    lines += [f"nut/test/good/{i}.png,test,OK" for i in range(3)]
    lines += [f"nut/test/bent/{i}.png,test,n.i.O." for i in range(3)]
    table = tree / "images.csv"
    table.write_text("\n".join(lines))
    ask = ("data=csv", f"data.file={table}", "method=memory")
    status, _, err = run(*SHORT, *ask, f"hydra.run.dir={tmp_path / 'stopped'}")
    assert status == 2
    assert len(err.strip().splitlines()) == 1
    assert "good and OK are different words for normal" in err
    assert "'data.normal=[good,OK]'" in err

    metrics, out = finished(tmp_path / "run", *ask, "data.normal=[good,OK]")
    assert "normal: good 5 (train), OK 3 (test); defective: n.i.O. 3 (test)\n" in out
    assert metrics["mean"]["I-AUROC"] is not None
    assert {row["injected"] for row in rows(tmp_path / "run" / "ranking.csv")} == {"0"}


def test_images_are_selected_within_their_view(tmp_path: Path) -> None:
    root = tmp_path / "real"
    entries: dict[str, list[dict[str, str | None]]] = {"train": [], "test": []}
    for i in range(4):
        for view in ("C1", "C2"):
            for part, kind in (("train", "OK"), ("test", "OK"), ("test", "BX")):
                name = f"{kind}/S{i}/plug_{i}{part}_{kind}_{view}_2023.jpg"
                mask = name.replace(".jpg", ".png") if kind == "BX" else None
                picture(root / "realiad_1024/plug" / name)
                if mask:
                    picture(root / "realiad_1024/plug" / mask, level=255 if i else 180)
                entries[part].append({"image_path": name, "mask_path": mask, "anomaly_class": kind})
    lists = root / "realiad_jsons" / "realiad_jsons" / "plug.json"
    lists.parent.mkdir(parents=True)
    lists.write_text(json.dumps({"meta": {}, **entries}))
    metrics, _ = finished(tmp_path / "run", "data=real_iad", f"data.root={root}", "noise=0")
    assert set(metrics["categories"]) == {"plug"}
    groups = {row["category"] for row in rows(tmp_path / "run" / "selection.csv")}
    assert groups == {"plug/C1", "plug/C2"}
    assert {row["category"] for row in rows(tmp_path / "run" / "ranking.csv")} == {"plug"}

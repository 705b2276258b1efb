"""The benchmarks at toy sizes, and their baseline against the package."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from backbones.dinomaly import Dinomaly
from meds_plugin.memory import bootstrap_scores, sample_subsets
from meds_plugin.metrics import image_score
from meds_plugin.runs.collection import read_run
from meds_plugin.training.distillation import distillation_loss
from meds_plugin.training.optimizer import OptimizerSettings, StableAdamW
from tests.backbones.small import noisy_images, small, widen
from tests.benchmarks import (
    end_to_end,
    evaluation,
    reviewing,
    rivals,
    steps,
    won_back,
    won_back_figures,
)
from tests.benchmarks.reference import ReferenceLoop, memory_loop
from tests.made_up import write_run
from tests.meds_plugin.review.made_up import make_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a benchmark's main and gives the figures it wrote."""

    def run(module: Any, *arguments: str) -> dict[str, Any]:
        output = tmp_path / "figures.json"
        monkeypatch.setattr(sys, "argv", ["benchmark", *arguments, "--output", str(output)])
        module.main()
        found: dict[str, Any] = json.loads(output.read_text())
        return found

    return run


def test_the_baseline_trains_and_scores_as_the_package_does() -> None:
    models = []
    for _ in range(2):
        model = small(Dinomaly, layers=(1, 2), dropout=0.0)
        widen(model)
        models.append(model)
    theirs, ours = models
    ours.load_state_dict(theirs.state_dict())
    loop = ReferenceLoop(theirs, batch=4)
    images = noisy_images(8, size=56)
    targets = torch.rand(8, 4, 4)
    params = ours.parameter_groups()[0]["params"]
    optimizer = StableAdamW(params, OptimizerSettings())
    encoded = ours.encode(images)
    loss = distillation_loss(ours.anomaly_map(encoded), targets)
    update(loop.distill(images, targets), loss, params, optimizer)
    loss = ours.loss(encoded, step=ours.hard_mining_steps, total_steps=10)
    update(loop.finetune(images), loss, params, optimizer)
    for name, weight in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], weight, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        expected = image_score(ours.anomaly_map(encoded), 0.01)
    torch.testing.assert_close(loop.score(images), expected, rtol=1e-4, atol=1e-6)


def update(
    theirs: float, loss: torch.Tensor, params: list[torch.nn.Parameter], optimizer: StableAdamW
) -> None:
    assert theirs == pytest.approx(float(loss.detach()), rel=1e-5)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(params, 0.1)
    optimizer.step()


def test_the_baselines_memories_score_as_the_packages() -> None:
    features = torch.randn(12, 9, 5)
    sample = torch.tensor([0, 7])
    subsets = sample_subsets(12, 0.1, 6, generator=torch.Generator().manual_seed(0))
    expected = bootstrap_scores(features, subsets)[sample]
    found = memory_loop(features, subsets, sample)
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1.1e-5)


def test_steps_with_and_without_cache_have_the_same_losses(
    report: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(
        steps, "--images", "6", "--batch", "2", "--size", "32", "--steps", "3", "--repeats", "1"
    )
    assert found["identical"]
    assert set(found["ratios"]) == set(found["seconds"]["with"])
    assert all(value > 0 for value in found["seconds"]["without"].values())
    assert "losses of all 6 steps identical: yes" in capsys.readouterr().out


def test_a_whole_run_is_set_against_all_parts_of_the_references(
    report: Callable[..., dict[str, Any]],
) -> None:
    sizes = "--categories 2 --images 6 --batch 2 --size 32 --steps 4 --memories 3 --loop-steps 2"
    found = report(end_to_end, *sizes.split(), "--loop-images", "1")
    parts, passes = found["reference"], found["passes"]
    total = parts["encoding for the memory"] * 6 + parts["memory loop"] * 12
    total += 4 * (parts["distillation steps"] + parts["fine-tuning steps"])
    total += passes * parts["selection passes"]
    assert found["reference_total"] == pytest.approx(total)
    assert found["ratio"] == pytest.approx(total / found["ours"])


def test_what_is_won_back_is_a_share_of_what_plain_training_lost(tmp_path: Path) -> None:
    levels = {"plain": {0.0: 0.9, 0.4: 0.7}, "meds": {0.0: 0.875, 0.4: 0.85}}
    runs = {
        method: [
            read_run(
                write_run(
                    tmp_path / f"{method}-{noise}-{seed}",
                    method=method,
                    noise=noise,
                    seed=seed,
                    value=value,
                )
            )
            for noise, value in values.items()
            for seed in (0, 1)
        ]
        for method, values in levels.items()
    }
    rows = {(row.variant, row.noise): row for row in won_back.summary(runs)}
    assert len(rows) == 4
    assert rows["meds", 0.4].won_image == pytest.approx(0.75)
    assert rows["meds", 0.4].won_pixel is None  # nothing was lost
    assert rows["meds", 0.4].seeds == 2
    assert rows["plain", 0.4].won_image == 0.0
    assert (rows["meds", 0.4].kept, rows["meds", 0.4].left_out) == (0.0, 0.0)
    assert set(rows["meds", 0.4].ranking) == {"memory", "final"}
    assert rows["meds", 0.4].ranking["final"][1] < 0.5
    names = ("set", "detector")
    pictures = won_back_figures.draw(tmp_path, {names: list(rows.values())}, {names: runs})
    assert [file.name for file in pictures] == ["won_back.png", "subset.png"]
    assert all(file.stat().st_size > 5000 for file in pictures)


def test_the_subset_over_time_is_a_mean_over_categories_and_runs(tmp_path: Path) -> None:
    runs = []
    for seed, bad in ((0, 2), (1, 6)):
        path = write_run(tmp_path / str(seed), method="meds", noise=0.4, seed=seed, value=0.9)
        lines = [f"{step},{name},10,1,1,1,{bad}" for step in (0, 20, 70) for name in "ab"]
        head = "step,category,kept,threshold,median,mad,contaminated"
        (path / "selection.csv").write_text("\n".join([head, *lines]) + "\n")
        runs.append(read_run(path))
    assert won_back_figures.subset_over_time(runs) == [(0, 0.4), (50, 0.4)]


def test_reviews_are_simulated_in_every_order(
    tmp_path: Path, report: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", [f"{number:03}.png" for number in range(96)])
    rows = report(reviewing, str(run), "--seeds", "2")
    found = {row["order"]: row for row in rows}
    assert [*found] == ["ranking", "random", "updated", "updated, to 2%", "updated, to 5%"]
    assert (found["ranking"]["until 90 %"], found["ranking"]["until all"]) == (11, 12)  # of 12
    assert found["random"]["until all"] > 48
    assert found["updated"]["until all"] <= 14
    assert found["updated, to 5%"]["stop at"] < found["updated, to 2%"]["stop at"] < 96
    assert found["updated, to 5%"]["right"] == 1.0
    assert "until 90 %" in capsys.readouterr().out


def test_rivals_are_measured_beside_anomalibs(
    report: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("anomalib")

    def here(options: Namespace, name: str) -> dict[str, float]:
        return rivals.measured(Namespace(**{**vars(options), "child": name}))

    monkeypatch.setattr(rivals, "in_a_process", here)
    sizes = ("--images", "4", "--tests", "2", "--patches", "20", "--channels", "16")
    found = report(rivals, *sizes)
    assert [row["method"] for row in found["rows"]] == list(rivals.METHODS)
    for row in found["rows"]:
        assert row["fit"] > 0
        assert row["score"] > 0
    assert found["rows"][0]["times_faster"] == 1


def test_maps_in_parts_have_the_metrics_of_all(report: Callable[..., dict[str, Any]]) -> None:
    rows = report(evaluation, "--images", "600", "--subset", "300", "--side", "64")["rows"]
    parts, few, many, whole = rows
    assert (many["images"], many["difference"]) == (600, None)
    assert parts["difference"] < 1e-12
    assert 0 < few["difference"] < 1e-3
    assert few["thresholds"] < parts["thresholds"] == whole["thresholds"]

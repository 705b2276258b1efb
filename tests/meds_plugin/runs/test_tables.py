from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest

from meds_plugin.runs.collection import read_run
from meds_plugin.runs.joined import join_categories
from meds_plugin.runs.published import _CATEGORIES, published_value
from meds_plugin.runs.tables import build_tables, csv_table, latex, markdown
from meds_plugin.utils.errors import UserError
from tests.made_up import write_run

if TYPE_CHECKING:
    from pathlib import Path

VISA = [
    "candle",
    "capsules",
    "cashew",
    "chewinggum",
    "fryum",
    "macaroni1",
    "macaroni2",
    "pcb1",
    "pcb2",
    "pcb3",
    "pcb4",
    "pipe_fryum",
]


def test_mean_and_spread_are_over_seeds(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "0", seed=0, value=0.8)),
        read_run(write_run(tmp_path / "1", seed=1, value=0.9)),
        read_run(write_run(tmp_path / "2", method="plain", value=0.7)),
    ]
    (table,) = build_tables(runs)
    lines = markdown(table).splitlines()
    assert lines[0] == "### data things, encoder tf_efficientnet_lite0"
    start = lines.index("| I-AUROC | 40 % |")
    assert lines[start + 2 : start + 4] == [
        "| Dinomaly | 70.00 |",
        "| Dinomaly + MeDS | 85.00 ± 7.07 |",
    ]
    assert "| AUPRC of the ranking | 40 % |" in lines
    assert table.missing == ["Dinomaly, method=plain, noise=40 %: no seed 1"]


def test_what_is_missing_is_a_dash_and_named(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "0", noise=0.1)),
        read_run(write_run(tmp_path / "1", noise=0.4)),
        read_run(write_run(tmp_path / "2", noise=0.4, backbone="hvq")),
    ]
    (table,) = build_tables(runs)
    assert "| HVQ + MeDS | - | 90.00 |" in markdown(table)
    assert table.missing == ["HVQ, method=meds, noise=10 %: no seed 0"]
    assert "HVQ + MeDS & -- & 90.00 \\\\" in latex(table)
    assert "I-AUROC & 10 \\% & 40 \\% \\\\ \\hline" in latex(table)


def test_the_rankings_of_the_stages_are_judged_too(tmp_path: Path) -> None:
    (table,) = build_tables([read_run(write_run(tmp_path / "0"))])
    rows = table.rows("auprc")
    assert rows == [("Dinomaly", "meds"), ("Dinomaly", "memory scores of MeDS")]
    cell = table.cells["auprc", "Dinomaly", "memory scores of MeDS", 0.4]
    assert 0.5 < cell.mean <= 1
    assert "| Dinomaly: memory scores of MeDS |" in markdown(table)
    assert "memory scores" not in markdown(table).partition("AUPRC of the ranking")[0]
    runs = [read_run(write_run(tmp_path / name, method=name)) for name in ("meds", "memory")]
    (own,) = build_tables(runs)
    assert own.rows("auprc") == [("Dinomaly", "meds"), ("Dinomaly", "memory")]
    (blind,) = build_tables([read_run(write_run(tmp_path / "1", known=False))])
    assert blind.rows("auprc") == []


def test_mixed_settings_never_share_a_mean(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "0", steps__distill=5, value=0.5)),
        read_run(write_run(tmp_path / "1", steps__distill=9, seed=1, value=0.9)),
        read_run(write_run(tmp_path / "2", steps__distill=9, backbone__detector__decoder_depth=8)),
    ]
    first, second = build_tables(runs)
    assert "steps.distill=5" in first.title
    assert "steps.distill=9" in second.title
    assert first.cells["I-AUROC", "Dinomaly", "meds", 0.4].mean == 0.5
    assert "Dinomaly (decoder_depth=2) + MeDS" in markdown(second)
    assert "Dinomaly (decoder_depth=8) + MeDS" in markdown(second)


def test_the_same_run_twice_is_refused(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name)) for name in ("0", "1")]
    with pytest.raises(UserError, match="the same run twice"):
        build_tables(runs)


def test_published_figures_stand_beside_ours_only_for_the_same_data(tmp_path: Path) -> None:
    ours = read_run(write_run(tmp_path / "0", categories=VISA, noise=0.05))
    (table,) = build_tables([ours])
    paper = published_value("visa", "dinomaly", "meds", "I-AUROC", 0.05)
    assert paper is not None
    assert f"| Dinomaly + MeDS (published) | {100 * paper:.2f} |" in markdown(table)
    rows = list(csv.DictReader(io.StringIO(csv_table([table]))))
    sources = {row["source"]: row for row in rows if row["metric"] == "I-AUROC"}
    assert float(sources["published"]["mean"]) == paper
    assert float(sources["ours"]["mean"]) == 0.9
    for name, other in (
        ("1", {"categories": VISA[:5], "noise": 0.05}),
        ("2", {"categories": VISA, "noise": 0.03}),
        ("3", {"categories": VISA, "noise": 0.05, "backbone": "anomalib"}),
        ("4", {"categories": VISA, "noise": 0.05, "noise_definition": "all"}),
        ("5", {"categories": VISA, "noise": 0.05, "noise_protocol": "no_overlap"}),
    ):
        (table,) = build_tables([read_run(write_run(tmp_path / name, **other))])  # type: ignore[arg-type]
        assert "published" not in markdown(table), other


def test_rivals_are_rows_of_their_own(tmp_path: Path) -> None:
    runs = [
        read_run(write_run(tmp_path / "0", categories=VISA, noise=0.05)),
        read_run(
            write_run(
                tmp_path / "1",
                method="softpatch",
                backbone="hvq",
                categories=VISA,
                noise=0.05,
                softpatch__coreset=0.1,
            )
        ),
        read_run(
            write_run(
                tmp_path / "2",
                method="softpatch",
                categories=VISA,
                noise=0.05,
                softpatch__coreset=0.01,
                patchcore__coreset=0.9,
            )
        ),
    ]
    (table,) = build_tables(runs)
    text = markdown(table)
    assert "| SoftPatch (coreset=0.1) | 90.00 |" in text
    assert "| SoftPatch (coreset=0.01) | 90.00 |" in text
    assert "| SoftPatch (coreset=0.1) (published) | 92.47 |" in text
    assert table.missing == []


def test_what_runs_cost_stands_below(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "0")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["seconds"] = {"memory": 4.0, "distill": 20.25, "evaluate": 100.0}
    metrics["memory_gb"] = {"host": 2.25, "device": None}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    lines = markdown(build_tables([read_run(folder)])[0]).splitlines()
    for title, value in (("seconds without evaluation", "24"), ("memory in GB", "2.2")):
        assert lines[lines.index(f"| {title} | 40 % |") + 2] == f"| Dinomaly + MeDS | {value} |"
    metrics["memory_gb"]["device"] = 5.0
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert read_run(folder).gigabytes == 5.0


def test_runs_on_one_category_each_become_one(tmp_path: Path) -> None:
    for number, (name, value) in enumerate((("nut", 0.8), ("tile", 0.9))):
        for seed in (0, 1):
            write_run(
                tmp_path / f"{number}{seed}",
                categories=[name],
                value=value,
                seed=seed,
                data__categories=[name],
            )
    runs = [read_run(path) for path in sorted(tmp_path.iterdir())]
    (table,) = build_tables(runs)
    cell = table.cells["I-AUROC", "Dinomaly", "meds", 0.4]
    assert cell.mean == pytest.approx(0.85)
    assert cell.runs == 2
    assert table.missing == []
    assert ("auprc", "Dinomaly", "memory scores of MeDS", 0.4) in table.cells
    joined = join_categories(runs)
    assert [run.categories for run in joined] == [["nut", "tile"]] * 2
    assert [run.seed for run in joined] == [0, 1]
    # a joint run stays what it is
    write_run(tmp_path / "joint", value=0.7)
    both = build_tables([*runs, read_run(tmp_path / "joint")])
    means = sorted(t.cells["I-AUROC", "Dinomaly", "meds", 0.4].mean for t in both)
    assert means == pytest.approx([0.7, 0.85])


def test_real_iads_lists_are_its_noise(tmp_path: Path) -> None:
    names = _CATEGORIES["real_iad"].split()
    run = read_run(
        write_run(
            tmp_path / "0",
            noise=None,
            method="plain",
            categories=names,
            data__variant="realiad_jsons_fuiad_0.4",
        )
    )
    assert run.noise == 0.4
    (table,) = build_tables([run])
    assert "| Dinomaly (published) |" in markdown(table)
    other = read_run(
        write_run(tmp_path / "1", noise=None, data__variant="realiad_jsons", categories=names)
    )
    assert other.noise is None

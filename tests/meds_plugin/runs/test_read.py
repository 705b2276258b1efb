"""What is read of a run's folder, and the one line where it is no run's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from meds_plugin.runs.read import (
    is_finished,
    read_config,
    read_embeddings,
    read_metrics,
    read_rows,
)
from meds_plugin.utils.errors import UserError
from tests.made_up import write_run

if TYPE_CHECKING:
    from pathlib import Path


def test_a_run_is_finished_when_its_results_are_of_all_steps(tmp_path: Path) -> None:
    assert not is_finished(tmp_path)
    assert not is_finished(write_run(tmp_path / "0", cut_short="training ended early"))
    run = write_run(tmp_path / "1")
    assert is_finished(run)
    (run / "metrics.json").write_text("{")
    assert not is_finished(run)


def test_a_configuration_is_resolved(tmp_path: Path) -> None:
    run = write_run(tmp_path / "0")
    with (run / "config.yaml").open("a") as file:
        file.write("again: ${seed}\n")
    assert read_config(run)["again"] == read_config(run)["seed"]


@pytest.mark.parametrize("text", ["[", "- a\n", "a: ${b}\n", "seed: 1\n"])
def test_what_is_no_configuration_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"config\.yaml is missing: give the folder of a run"):
        read_config(tmp_path)
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml is not a configuration of a run") as error:
        read_config(tmp_path)
    assert "\n" not in str(error.value)


def test_what_are_no_metrics_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"metrics\.json is missing: give the folder of a finished"):
        read_metrics(tmp_path)
    (tmp_path / "metrics.json").write_text('{"mean": {}}')
    with pytest.raises(UserError, match=r"metrics\.json is not of a finished run"):
        read_metrics(tmp_path)


def test_rows_are_read_by_column_and_a_damaged_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ranking.csv"
    assert read_rows(file) == []
    file.write_bytes(b'path,score\n"a\rb.png",1\n')
    assert read_rows(file) == [{"path": "a\rb.png", "score": "1"}]
    file.write_bytes(b"path\n\xff\n")
    with pytest.raises(UserError, match=r"ranking\.csv cannot be read"):
        read_rows(file)


def test_embeddings_belong_to_the_runs_images(tmp_path: Path) -> None:
    assert read_embeddings(tmp_path, 3) is None
    half = np.eye(3, dtype=np.float16)
    np.savez(tmp_path / "embeddings.npz", image=half, peak=half)
    found = read_embeddings(tmp_path, 3)
    assert found is not None
    assert found["peak"].dtype == np.float32
    with pytest.raises(UserError, match="list different images"):
        read_embeddings(tmp_path, 4)
    (tmp_path / "embeddings.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"embeddings\.npz is damaged"):
        read_embeddings(tmp_path, 3)

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from PIL import Image

from meds_plugin.runs.logged import final_values, log_pictures

if TYPE_CHECKING:
    from pathlib import Path


class Heard:
    """Stands in for a logger, or for what it logs to: remembers the calls it knows."""

    def __init__(self, *names: str, experiment: Any = None) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.experiment = experiment
        self.run_id = "r"
        for name in names:
            setattr(
                self, name, lambda *args, _name=name, **kw: self.calls.append((_name, args, kw))
            )


def test_pictures_go_to_every_logger_in_its_own_way(tmp_path: Path) -> None:
    file = tmp_path / "tiles.png"
    Image.new("RGB", (4, 3)).save(file)
    wandb, table = Heard("log_image"), Heard()
    board, flow, comet = Heard("add_image", "flush"), Heard("log_artifact"), Heard("log_image")
    loggers = [wandb, table, *(Heard(experiment=each) for each in (board, flow, comet))]
    log_pictures(loggers, [file], 7)
    assert wandb.calls == [("log_image", (), {"key": "tiles", "images": [str(file)]})]
    (name, (key, pixels, step), more), flushed = board.calls
    assert (name, key, pixels.shape, step, more) == (
        "add_image",
        "tiles",
        (3, 4, 3),
        7,
        {"dataformats": "HWC"},
    )
    assert flushed[0] == "flush"
    assert flow.calls == [("log_artifact", ("r", str(file), "figures"), {})]
    assert comet.calls == [("log_image", (str(file),), {"name": "tiles", "step": 7})]


def test_values_have_the_names_of_the_field() -> None:
    found = final_values(
        {
            "mean": {"I-AUROC": 0.5, "P-AP": None},
            "categories": {"nut": {"I-AUROC": 0.25}},
            "ranking": {"auprc": None, "inspection_depth": 0.5, "categories": {}},
            "seconds": {"memory": 3},
        }
    )
    assert found == {
        "I-AUROC": 0.5,
        "nut/I-AUROC": 0.25,
        "ranking/inspection_depth": 0.5,
        "seconds/memory": 3.0,
    }

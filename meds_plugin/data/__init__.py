"""Where images come from, and how they are read, contaminated and served."""

from meds_plugin.data.check import CheckReport, check_samples
from meds_plugin.data.dataset import ImageDataset
from meds_plugin.data.images import read_image
from meds_plugin.data.masks import read_mask
from meds_plugin.data.module import AnomalyDataModule, ManifestRow
from meds_plugin.data.noise import NoiseReport, contaminate
from meds_plugin.data.prepare import BadFilesError, DataSettings, Prepared, prepare
from meds_plugin.data.readers import (
    read_btad,
    read_csv,
    read_elpv,
    read_folder,
    read_kolektor_sdd,
    read_kolektor_sdd2,
    read_mvtec,
    read_mvtec_loco,
    read_real_iad,
    read_visa,
)
from meds_plugin.data.samples import Problem, Sample, Split
from meds_plugin.data.synthetic.split import synthetic_split
from meds_plugin.data.transforms import Preprocess

__all__ = [
    "AnomalyDataModule",
    "BadFilesError",
    "CheckReport",
    "DataSettings",
    "ImageDataset",
    "ManifestRow",
    "NoiseReport",
    "Prepared",
    "Preprocess",
    "Problem",
    "Sample",
    "Split",
    "check_samples",
    "contaminate",
    "prepare",
    "read_btad",
    "read_csv",
    "read_elpv",
    "read_folder",
    "read_image",
    "read_kolektor_sdd",
    "read_kolektor_sdd2",
    "read_mask",
    "read_mvtec",
    "read_mvtec_loco",
    "read_real_iad",
    "read_visa",
    "synthetic_split",
]

"""Finds the images of a data set: a reader for each ``data=NAME``, in a module of that name.

A new layout needs two files: a module here whose ``read_NAME(root, categories, ...)`` returns a
`Split`, and ``conf/data/NAME.yaml``, which names it as the source. Readers share `arguments` (the
root and the categories), `by_category` (order, and notes on what is missing), `listed_images`
(files that a list names), `mask_files` (masks by the names of their files), `part_folders`
(``train``, ``test`` and ``good`` by other names), `safe_paths` and `layout_guess` (which reader
fits a folder). What labels mean is in `data.words`. Parts of `folder` are in ``folder_*.py``;
`csv_dataset` is the reader of ``data=csv``, with `csv_columns` and `csv_labels`.
"""

from meds_plugin.data.readers.btad import read_btad
from meds_plugin.data.readers.csv_dataset import read_csv
from meds_plugin.data.readers.elpv import read_elpv
from meds_plugin.data.readers.folder import read_folder
from meds_plugin.data.readers.kolektor_sdd import read_kolektor_sdd
from meds_plugin.data.readers.kolektor_sdd2 import read_kolektor_sdd2
from meds_plugin.data.readers.mvtec import read_mvtec
from meds_plugin.data.readers.mvtec_loco import read_mvtec_loco
from meds_plugin.data.readers.real_iad import read_real_iad
from meds_plugin.data.readers.visa import read_visa

__all__ = [
    "read_btad",
    "read_csv",
    "read_elpv",
    "read_folder",
    "read_kolektor_sdd",
    "read_kolektor_sdd2",
    "read_mvtec",
    "read_mvtec_loco",
    "read_real_iad",
    "read_visa",
]

"""Finds the images of a data set: one reader for each ``data=NAME``, in the module ``NAME.py``.

A new layout needs two files: a module here whose ``read_NAME(root, categories, ...)`` returns a
`Split`, and ``conf/data/NAME.yaml``, which names it as the source. What readers share: `arguments`
checks the root and the categories, `by_category` orders images and notes what is missing,
`listed_images` looks up files that a list names, `layout_guess` suggests the right reader where the
folder has another layout. Parts of `folder` are called ``folder_*.py``.
"""

from meds_plugin.data.readers.csv_dataset import read_csv
from meds_plugin.data.readers.elpv import read_elpv
from meds_plugin.data.readers.folder import read_folder
from meds_plugin.data.readers.mvtec import read_mvtec
from meds_plugin.data.readers.real_iad import read_real_iad
from meds_plugin.data.readers.visa import read_visa

__all__ = ["read_csv", "read_elpv", "read_folder", "read_mvtec", "read_real_iad", "read_visa"]

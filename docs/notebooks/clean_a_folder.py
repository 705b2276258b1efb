# %% [markdown]
# # Clean a folder of images
#
# You have a folder of product photographs. Most show good products, some do not, and nobody has
# sorted them. This notebook trains a detector on all of them, finds those that do not belong,
# trains again without them, and scores new images.
#
# It takes about two minutes on two CPU cores, and needs the extra `plots`:
# `pip install -e ".[plots]"` in the clone.

# %%
import csv
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import meds_plugin
from meds_plugin.data import synthetic_split
from meds_plugin.metrics import auroc

# %% [markdown]
# ## A folder of unsorted images
#
# The images here are made in code, so that the notebook runs anywhere and the truth is known: 60
# good pieces of cloth and 12 defective ones, shuffled and numbered. With images of your own, set
# `PHOTOS` and `NEW` to your folders instead; format, size and nesting do not matter.

# %%
WORK = Path("clean_a_folder")
PHOTOS, NEW = WORK / "photos", WORK / "new"
GOOD, DEFECTIVE = 60, 12


def write(samples, folder):
    """Write images under neutral names; return which of the names are defective."""
    folder.mkdir(parents=True, exist_ok=True)
    truth = {}
    for number, place in enumerate(np.random.default_rng(0).permutation(len(samples))):
        name = f"{number:03}.png"
        Image.fromarray(samples[place].image).save(folder / name)
        truth[name] = samples[place].defect is not None
    return truth


made = synthetic_split(
    categories=["weave"], size=224, train_normal=GOOD, test_normal=20, test_defective=2 * DEFECTIVE
)
good = [sample for sample in made.test if sample.defect is None]
bad = [sample for sample in made.test if sample.defect is not None]
is_defective = write([*made.train, *bad[::2]], PHOTOS)
new_is_defective = write([*good, *bad[1::2]], NEW)

# %% [markdown]
# ## The first run
#
# One command trains on everything in the folder. It needs no labels: MeDS leaves out what looks
# suspicious. `STEPS` is a third of the default, which is enough for so few images.

# %%
STEPS = ["steps.distill=100", "steps.finetune=200"]


def meds(command, *arguments):
    """Run a command of the package, as in a terminal, and show what it prints."""
    words = ["-m", f"meds_plugin.{command}", *map(str, arguments)]
    print("$ python", *words)
    done = subprocess.run([sys.executable, *words], check=True, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="")


FIRST = WORK / "first"
meds("run", "data=folder", f"data.root={PHOTOS}", f"hydra.run.dir={FIRST}", *STEPS)

# %% [markdown]
# The estimate of the contamination comes from the scores alone; in truth it is 17 %.
#
# ## The ranking
#
# `ranking.csv` lists the training images from most to least suspicious. `selected` is 0 where MeDS
# left the image out.

# %%
with (FIRST / "ranking.csv").open(newline="") as file:
    ranking = list(csv.DictReader(file))
for row in ranking[:5]:
    score, selected = float(row["score"]), row["selected"]
    print(f"{row['rank']}. {row['path']}  score {score:.1f}  selected {selected}")

# %% [markdown]
# The trained detector shows what is odd about an image: `meds_plugin.load` reads the run, and
# `predict` returns scores and anomaly maps.

# %%
detector = meds_plugin.load(FIRST / "model.ckpt")
suspicious = [PHOTOS / row["path"] for row in ranking[:6]]
maps = detector.predict(suspicious).maps.numpy()

figure, axes = plt.subplots(2, len(suspicious), figsize=(8, 3), layout="constrained")
for column, file, anomaly_map in zip(axes.T, suspicious, maps, strict=True):
    column[0].imshow(Image.open(file))
    column[0].set_title(file.name)
    column[1].imshow(anomaly_map, vmin=maps.min(), vmax=maps.max())
for axis in axes.flat:
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Decisions
#
# This part is yours. Open `clean_a_folder/first/review.html` in a browser, press `D` (drop) or `K`
# (keep) at each image, and download `decisions.csv`.
#
# So that the notebook runs without you, **the known truth decides here in your place**: of the
# images that MeDS left out, the defective ones are dropped. With images of your own, set
# `DECISIONS` to the file you have downloaded.

# %%
DECISIONS = WORK / "decisions.csv"
looked_at = [row["path"] for row in ranking if row["selected"] == "0"]
with DECISIONS.open("w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["path", "decision"])
    for name in looked_at:
        table.writerow([name, "drop" if is_defective[name] else "keep"])
found = sum(is_defective[name] for name in looked_at)
print(f"looked at {len(looked_at)} of {len(ranking)} images")
print(f"found {found} of {sum(is_defective.values())} defective ones")

# %% [markdown]
# ## Train again without the dropped images
#
# `review --apply` writes the list of images to leave out, and `data.exclude` leaves them out.

# %%
EXCLUDE = WORK / "exclude.csv"
meds("review", FIRST, "--apply", DECISIONS, "--output", EXCLUDE)

# %%
SECOND = WORK / "second"
meds(
    "run",
    "data=folder",
    f"data.root={PHOTOS}",
    f"data.exclude={EXCLUDE}",
    f"hydra.run.dir={SECOND}",
    *STEPS,
)

# %% [markdown]
# ## New images
#
# Both detectors score images that neither has seen. `labels` are alarms: scores above the threshold
# that the run has chosen from its selected training images. The AUROC needs the truth; it is 1
# where every defective image scores higher than every good one.

# %%
files = sorted(NEW.iterdir())
truth = np.array([new_is_defective[file.name] for file in files])
for run in (FIRST, SECOND):
    result = meds_plugin.load(run / "model.ckpt").predict(files)
    alarms = result.labels.numpy()
    print(
        f"{run.name} run: AUROC {auroc(result.scores, truth):.3f},",
        f"alarms for {alarms[truth].sum()} of {truth.sum()} defective",
        f"and {alarms[~truth].sum()} of {(~truth).sum()} good images",
    )

# %% [markdown]
# The two are about equal here: MeDS had left out most of the defective images by itself. What the
# review adds is a clean folder, and knowing what the detector was trained on.
#
# ## Where to go on
#
# * [Review and cleaning](../review.md): fewer images to look at, several reviewers, other tools,
#   dropped files put aside
# * [Data](../data.md): labels, masks, other layouts
# * [Predict and export](../predict.md): alarm thresholds, ONNX

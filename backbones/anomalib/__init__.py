"""anomalib's models as detectors, and its PatchCore as a scorer; needs the extra ``anomalib``.

Do not compare MeDS's numbers with theirs; use `backbones.dinomaly` and
`backbones.inp_former`. Dinomaly in anomalib 2.7 has MLPs without biases, another epsilon in its
optimiser, and 0.9 as the final share of easy points with at least one hard point; it fails on
groups of layers given to it. Its Dinomaly returns the map before the blur, and its INP-Former blurs
at full size without resizing to 256, so both score images differently from the authors' code.
Here every map is taken before any blur, and the plugin's evaluation follows.

Inside this package, ``import anomalib`` is the library.
"""

from backbones.anomalib.detector import AnomalibDetector
from backbones.anomalib.patchcore import patchcore_scores

__all__ = ["AnomalibDetector", "patchcore_scores"]

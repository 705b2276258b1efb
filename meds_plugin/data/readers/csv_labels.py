"""What the labels of a table mean: `data=csv`."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, TypeAlias

from meds_plugin.data.faults import shown
from meds_plugin.data.words import Meaning, doubt, meaning, word_key
from meds_plugin.utils.errors import UserError
from meds_plugin.utils.text import first_few

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meds_plugin.data.samples import Sample

__all__ = ["Labels", "NormalWords"]

NormalWords: TypeAlias = "str | float | Sequence[str | float] | None"

# Words for a defect that say nothing about its kind, not even as a name.
_NAMELESS = frozenset({"0", "1", "true", "false", "yes", "no", "y", "n", "ja", "nein"})
_KIND = "anomaly"
_EMPTY_CELLS = "say that empty cells mean normal: data.normal=''"


class Labels:
    """What the labels in a column mean.

    Args:
        normal: The only words that mean normal; ``None``: the usual ones.
        where: The file and the column, for messages.
        of_defect: See `meaning`.
    """

    def __init__(self, normal: NormalWords, where: str, *, of_defect: bool) -> None:
        self._normal: dict[str, str] | None = None
        if normal is not None:
            words = [normal] if isinstance(normal, str | int | float) else list(normal)
            self._normal = {word_key(str(word)): str(word) for word in words}
        self._where = where
        self._of_defect = of_defect

    @property
    def usual(self) -> bool:
        """Whether words have their usual meaning."""
        return self._normal is None

    def meaning(self, label: str) -> Meaning:
        """Return what a label means."""
        usual = meaning(label, of_defect=self._of_defect)
        if self._normal is None:
            return usual
        if word_key(label) in self._normal:
            return Meaning.NORMAL
        return usual if usual in (Meaning.MISSING, Meaning.DEFECTIVE) else Meaning.KIND

    def defect(self, label: str) -> str | None:
        """Return the kind of defect that a label names; ``None``: none."""
        if self.meaning(label) in (Meaning.NORMAL, Meaning.MISSING):
            return None
        return _KIND if word_key(label) in _NAMELESS else label.strip()

    def check(self, labels: Iterable[str], tested: Iterable[str]) -> None:
        """Refuse labels of which nobody can say for certain which are normal.

        Args:
            labels: Those of all images.
            tested: Those of the test images.

        Raises:
            UserError: If two words mean normal, one may or may not, or a word that ``normal``
                names is not there.
        """
        counts = Counter(label.strip() for label in labels)
        if self._normal is not None:
            there = {word_key(label) for label in counts}
            for key, word in self._normal.items():
                if key not in there:
                    msg = (
                        f"data.normal={word}: {self._where} has no such label, but {_some(counts)}"
                    )
                    raise UserError(msg)
            return
        if doubtful := doubt(counts, of_defect=self._of_defect):
            usual = [word for word in counts if self.meaning(word) is Meaning.NORMAL]
            msg = f"{self._where}: {doubtful}; write one word for normal, or {_naming(usual)}"
            raise UserError(msg)
        if any(self.meaning(label) is Meaning.NORMAL for label in counts):
            return
        silent = [label.strip() for label in tested if self.meaning(label) is Meaning.MISSING]
        word = next(filter(None, silent), "")
        if silent and (word or self._of_defect):
            msg = (
                f"{self._where}: {shown(word) or 'nothing'} labels test images, but may mean "
                "normal or unknown; write a word for normal or the defect's name, or "
                f"{_naming([word]) if word else _EMPTY_CELLS}"
            )
            raise UserError(msg)

    def check_samples(self, train: Sequence[Sample], test: Sequence[Sample]) -> None:
        """Refuse labels that the masks contradict, or of which none is known to mean normal.

        Raises:
            UserError: If so.
        """
        normal = [sample for sample in test if not sample.is_anomaly]
        defective = [sample for sample in test if sample.is_anomaly]
        masked = [shown(sample.label or "") for sample in normal if sample.mask is not None]
        if masked and defective and all(sample.mask is None for sample in defective):
            msg = (
                f"{self._where}: all masks belong to images labelled {masked[0]}, which is taken "
                f"as normal; correct the masks, or {_naming([])}"
            )
            raise UserError(msg)
        if not self.usual or normal or any(sample.injected is False for sample in train):
            return
        words = Counter(sample.label or "" for sample in test)
        bare = set(words) - {sample.label for sample in test if sample.mask is not None}
        if len(words) > 1 and any(self.meaning(word) is Meaning.KIND for word in bare):
            msg = (
                f"{self._where}: none of {_some(words)} is a usual word for normal; {_naming([])}, "
                "or data.normal=[] if all are defects"
            )
            raise UserError(msg)


def _naming(words: Sequence[str]) -> str:
    """Say how to name the words for normal, such as these."""
    plain = [word.strip() for word in words if re.fullmatch(r"[\w .+/-]+", word)] or ["WORD"]
    value = plain[0] if len(plain) == 1 else f"[{','.join(plain)}]"
    return f"name what means normal, as in {shlex.quote(f'data.normal={value}')}"


def _some(counts: Counter[str]) -> str:
    words = [f"{shown(word) or 'empty cells'} ({n})" for word, n in counts.most_common()]
    return first_few(words, 5)

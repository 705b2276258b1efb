"""What the words of data sets mean: normal or defective, training or test, nothing given.

Every reader asks here, so that a word means the same in a table and as the name of a folder. Case,
accents, spaces and punctuation do not count (``Defect-free``, ``defect_free``), nor do words that
say nothing about the product (``normal_test``, ``good images``).
"""

from __future__ import annotations

import re
import unicodedata
from difflib import get_close_matches
from enum import Enum, auto
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from meds_plugin.data.faults import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Meaning", "Part", "doubt", "is_missing", "is_telling", "meaning", "part_of", "word_key"]

Part = Literal["train", "test", "val"]


class Meaning(Enum):
    """What a word says about an image."""

    NORMAL = auto()
    DEFECTIVE = auto()  # without naming a kind of defect
    KIND = auto()  # any other word: a kind of defect
    MISSING = auto()  # nothing is given
    UNCLEAR = auto()  # may mean normal or defective


def _fold(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


def _words(text: str) -> frozenset[str]:
    return frozenset(_fold(text).split())


_NORMAL = _words(
    "good ok okay go normal normals nominal n 0 false neg negative negatives clean fine pass "
    "passes passed passing healthy intact perfect flawless accept accepted acceptable conform "
    "conforming compliant correct valid inlier inliers "
    "io inordnung gut gutteil gutteile normale einwandfrei bestanden negativ "
    "bon bonne conforme bueno buena buono buona bom boa goed "
    "正常 良品 良好 合格 合格品 无缺陷 無缺陷 无异常 無異常 異常なし 欠陥なし 정상 양품"
)
_DEFECTIVE = _words(
    "bad ng nok ko 1 true pos positive positives fail fails failed failing failure fault faults "
    "faulty defect defects defective defected anomaly anomalies anomalous anomal abnormal "
    "abnormals abnormality abnormalities anormal damage damaged flaw flaws flawed error errors "
    "reject rejects rejected invalid incorrect outlier outliers disease diseased finding findings "
    "nio defekt fehler fehlerhaft mangel mangelhaft schlecht schlechtteil schlechtteile ausschuss "
    "beschädigt auffällig befund anomalie positiv "
    "mauvais mauvaise défaut défauts défectueux rebut malo mala defecto defectuoso difetto "
    "difettoso scarto ruim defeito slecht "
    "异常 異常 不良 不良品 不合格 不合格品 缺陷 有缺陷 瑕疵 欠陥 불량 불량품 이상"
)
_EMPTY = _words("nan na none null")
_MISSING = _EMPTY | _words(
    "unknown unlabeled unlabelled undefined undecided unsure uncertain unclear ambiguous maybe "
    "doubtful tbd todo unbekannt unklar"
)
# Answers whose question matters: whether there is a defect, or whether the product is good?
_NO = _words("no none n nein kein keine nothing")
_YES = _words("yes y ja j")
_NEGATIONS = ("not", "non", "no", "un", "without", "nicht", "keine", "kein", "ohne", "sans", "sin")
_FREE = ("free", "frei")
# Hardly part of a defect's name, unlike fine (a fine scratch), clean (a clean cut) or negative.
_TELLING = _words("good ok okay normal gut io pass passed healthy")
_SPELT = ("good", "normal", "okay", "passed", "healthy", "negative", "defectfree", "inordnung")
_SIMILAR = 0.82  # a letter too many or too few: goood, nomal; but not gold or wood

_PARTS: dict[str, Part] = {
    **dict.fromkeys(("train", "training", "trainset"), "train"),
    **dict.fromkeys(("test", "tests", "testing", "testset", "eval", "evaluation"), "test"),
    **dict.fromkeys(("holdout", "heldout"), "test"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "dev"), "val"),
}
_BESIDES = _words(
    "image images img imgs picture pictures photo photos part parts sample samples product "
    "products item items piece pieces object objects specimen data set class label quality any "
    "found detected visible present teil teile bild bilder"
)
_WHOLE = re.compile(r"([+-]?)(0|[1-9][0-9]*)(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?[0-9]*[.,]?[0-9]+(?:e[+-]?[0-9]+)?")


def word_key(text: str) -> str:
    """Return what two spellings of one word have in common; empty if there is no word."""
    plain = unicodedata.normalize("NFKC", text).strip()
    if whole := _WHOLE.fullmatch(plain):
        return ("-" if whole[1] == "-" else "") + whole[2]
    if _NUMBER.fullmatch(plain.casefold()):
        return plain.casefold()
    words = _split(plain)
    telling = "".join(word for word in words if word not in _BESIDES and word not in _PARTS)
    # `test_0` and `part_n` may number something; `no_label` is a defect.
    return telling if len(telling) > 1 and _known(telling) else "".join(words)


@lru_cache(maxsize=1024)
def meaning(word: str, *, of_defect: bool = False) -> Meaning:
    """Return what a word means.

    Args:
        word: A label or a folder's name.
        of_defect: Whether it answers the question for a defect, as in a column ``defect_type``.
            There, ``none`` and ``no`` mean normal and ``yes`` means defective; elsewhere, ``none``
            may stand for no label, and ``no`` and ``yes`` are unclear.
    """
    key = word_key(word)
    if of_defect and key in _NO:
        return Meaning.NORMAL
    if of_defect and key in _YES:
        return Meaning.DEFECTIVE
    if not key or key in _MISSING:
        return Meaning.MISSING
    known = _known(key)
    if known is not None:
        return known
    if key in _NO or key in _YES or key.startswith("-"):
        return Meaning.UNCLEAR
    if _NUMBER.fullmatch(key):  # a folder 0.5 may be a size, but a label 0.5 is a score
        return Meaning.KIND if of_defect or key.isdecimal() else Meaning.UNCLEAR
    return Meaning.UNCLEAR if _resembles_normal(word, key) else Meaning.KIND


def is_missing(text: str) -> bool:
    """Whether a cell is empty or holds what stands for no value (``nan``, ``NULL``, ``-``)."""
    return set(text.strip()) <= {"-", "?"} or word_key(text) in _EMPTY


def is_telling(word: str) -> bool:
    """Whether a word means normal or defective and is hardly part of a defect's name."""
    key = word_key(word)
    return key in _TELLING or (len(key) > 1 and _known(key) is Meaning.DEFECTIVE)


def part_of(word: str) -> Part | None:
    """Return the part of a data set that a word names: ``train``, ``test``, ``val`` or none."""
    words = _split(word)
    return _PARTS.get("".join(words)) or _PARTS.get("".join(w for w in words if w not in _BESIDES))


def doubt(words: Iterable[str], *, of_defect: bool = False, needed: bool = False) -> str | None:
    """Say what is doubtful about the words of one list; ``None`` if nothing is.

    A word that only resembles one for normal is doubtful, so are two different words for normal:
    one of them may be the name of something else.

    Args:
        words: Labels or folders' names.
        of_defect: See `meaning`.
        needed: Whether each of them must say something.
    """
    spellings: dict[str, str] = {}
    for word in words:
        spellings.setdefault(word_key(word), shown(word.strip()))
    found = {key: meaning(word, of_defect=of_defect) for key, word in spellings.items()}
    kinds = [key for key in found if found[key] is Meaning.KIND]
    denied = {start + kind for kind in kinds for start in _NEGATIONS}
    denied |= {kind + end for kind in kinds for end in _FREE}
    normal = [spellings[key] for key in found if found[key] is Meaning.NORMAL]
    unclear = [w for key, w in spellings.items() if found[key] is Meaning.UNCLEAR or key in denied]
    if needed and Meaning.MISSING in found.values():
        silent = next(key for key in found if found[key] is Meaning.MISSING)
        return f"{spellings[silent]} says nothing"
    if unclear:
        beside = f" (beside {normal[0]})" if normal else ""
        return f"{unclear[0]}{beside} may mean normal or defective"
    if len(normal) > 1:
        return f"{', '.join(normal[:-1])} and {normal[-1]} are different words for normal"
    return None


def _split(text: str) -> list[str]:
    """Return the words of a text, also those written together (``goodTest``)."""
    apart = re.sub(r"(?<=[^\W\d_A-Z])(?=[A-Z])", " ", text)
    return re.findall(r"[^\W_]+", _fold(apart))


def _known(key: str) -> Meaning | None:
    """Return whether a key means normal or defective, also by its negation; ``None``: neither."""
    if key in _NORMAL:
        return Meaning.NORMAL
    if key in _DEFECTIVE:
        return Meaning.DEFECTIVE
    for start in _NEGATIONS:
        rest = key.removeprefix(start)
        if rest != key and len(rest) > 1 and (meant := _known(rest)):
            return Meaning.NORMAL if meant is Meaning.DEFECTIVE else Meaning.DEFECTIVE
    free = any(key.endswith(end) and key.removesuffix(end) in _DEFECTIVE for end in _FREE)
    return Meaning.NORMAL if free else None


def _resembles_normal(word: str, key: str) -> bool:
    words = {each.rstrip("0123456789") for each in _split(word)}
    stem = key.rstrip("0123456789")
    return (
        not words.isdisjoint(_TELLING - {"io"})
        or key.startswith(("good", "norm"))
        or (len(stem) > 1 and stem != key and _known(stem) is Meaning.NORMAL)
        or bool(get_close_matches(key, _SPELT, 1, _SIMILAR))
    )

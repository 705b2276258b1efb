from __future__ import annotations

import pytest

from meds_plugin.data.words import (
    Meaning,
    doubt,
    is_missing,
    is_telling,
    meaning,
    part_of,
    word_key,
)


@pytest.mark.parametrize(
    "words",
    [
        "good Good GOOD ok OK okay pass PASS passed normal Normal n N 0 0.0 False neg Negative",
        "clean defectfree Defect-Free defect_free DefectFree fine io iO i.O. i.o. gut Gutteile",
        "healthy no_defect no-defects NoDefect intact nominal conforming fehlerfrei undamaged",
        "normal_test good_train test_normal train/good goodTest TestGood normal-val good_holdout",
        "good_images OK-Teile normal_samples NODefect_images nicht_defekt unauffällig keine_Fehler",
        "non-defective not_defective unbeschädigt \uff2f\uff2b 正常 良品 정상",
    ],
)
def test_words_for_normal(words: str) -> None:
    assert {word: meaning(word) for word in words.split()} == dict.fromkeys(
        words.split(), Meaning.NORMAL
    )


def test_words_for_normal_with_spaces() -> None:
    for word in (
        " good ",
        "i. O.",
        "in Ordnung",
        "defect free",
        "ohne Befund",
        "test  normal",
        "no defects found",
    ):
        assert meaning(word) is Meaning.NORMAL, word


@pytest.mark.parametrize(
    "words",
    [
        "bad Bad ng NG nok NOK n.i.O. n.i.o. nio fail FAIL failed defect Defective anomaly",
        "anomalous abnormal 1 1.0 true True positive pos reject rejected KO ungood faulty",
        "defect_test test_defective NG_images not_ok notOK no-good nogo non-conforming unhealthy",
        "schlecht Ausschuß nicht_in_Ordnung defekt 不良 異常 缺陷 불량",
    ],
)
def test_words_for_defective(words: str) -> None:
    assert {word: meaning(word) for word in words.split()} == dict.fromkeys(
        words.split(), Meaning.DEFECTIVE
    )


def test_words_for_defective_with_spaces() -> None:
    for word in ("not ok", "n. i. O.", "nicht i.O.", "no good"):
        assert meaning(word) is Meaning.DEFECTIVE, word


def test_other_words_are_kinds_of_defects() -> None:
    # The kinds of MVTec AD, MVTec LOCO, VisA, Real-IAD, BTAD and others that are near other words.
    text = (
        "scratch broken_large combined color cut fold glue hole print poke bent gray_stroke oil "
        "metal_contamination faulty_imprint pill_type thread_side misplaced logical_anomalies "
        "structural_anomalies no_cap no_label no_part missing_cable split_teeth fine_scratch "
        "clean_cut negative_pole notch noise wood gold mold gum HS QS BX 2 00 01 test_0 part_n"
    )
    words = text.split()
    assert {word: meaning(word, of_defect=True) for word in words} == dict.fromkeys(
        words, Meaning.KIND
    )


@pytest.mark.parametrize(
    "word", ["-1", "0.5", "yes", "no", "y", "good2", "OK_1", "goood", "nomal", "ok_scratch", "norm"]
)
def test_unclear_words(word: str) -> None:
    assert meaning(word) is Meaning.UNCLEAR


def test_missing_words() -> None:
    for text in ("", " ", "nan", "NaN", "None", "NULL", "<NA>", "n/a", "-", "--", "?"):
        assert meaning(text) is Meaning.MISSING, text
        assert is_missing(text), text
    for text in ("unknown", "Unlabeled", "unsure"):
        assert meaning(text) is Meaning.MISSING, text
        assert not is_missing(text), text  # may be a category
    for text in ("~", ".", "0", "x"):
        assert not is_missing(text), text


def test_the_question_matters() -> None:
    for word, of_defect in {
        "none": Meaning.NORMAL,
        "No": Meaning.NORMAL,
        "yes": Meaning.DEFECTIVE,
        "0.5": Meaning.KIND,  # such as a size
        "-1": Meaning.UNCLEAR,
        "nan": Meaning.MISSING,
    }.items():
        assert meaning(word, of_defect=True) is of_defect, word


def test_keys_of_spellings() -> None:
    for one, other in (
        ("defect-free", "Defect Free"),
        ("good", "good_train"),
        ("1", "1.0"),
        ("i.O.", "IO"),
        ("Öl", "öl"),
        ("no_label", "No label"),
    ):
        assert word_key(one) == word_key(other)
    for one, other in (("1", "-1"), ("1", "01"), ("no_label", "no"), ("good", "ok"), ("1", "1.5")):
        assert word_key(one) != word_key(other)


def test_telling_words() -> None:
    assert all(map(is_telling, ("good", "OK", "i.O.", "NG", "defective", "bad")))
    assert not any(map(is_telling, ("fine", "clean", "0", "1", "n", "scratch", "negative")))


def test_doubt() -> None:
    assert doubt(["good", "Good", "good_train", "scratch", "NG", ""]) is None
    assert doubt(["good", "OK", "Pass", "x"]) == (
        "good, OK and Pass are different words for normal"
    )
    assert doubt(["normal", "nomal"]) == "nomal (beside normal) may mean normal or defective"
    assert doubt(["y", "n"]) == "y (beside n) may mean normal or defective"
    assert doubt(["y", "n"], of_defect=True) is None
    assert doubt(["-1", "1"]) == "-1 may mean normal or defective"
    assert doubt(["crack", "no crack"]) == "no crack may mean normal or defective"
    assert doubt(["crackfree", "crack"]) == "crackfree may mean normal or defective"
    assert doubt(["hole", "no_label"]) is None
    assert doubt(["good", "nan"]) is None
    assert doubt(["good", "nan"], needed=True) == "nan says nothing"
    assert doubt(["two\nlines of good"]) == "'two\\nlines of good' may mean normal or defective"


def test_parts() -> None:
    for word in ("train", "Train", "TRAINING", " train ", "train_set", "training data"):
        assert part_of(word) == "train", word
    for word in ("test", "Testing", "hold-out", "holdout", "held out", "eval", "test set"):
        assert part_of(word) == "test", word
    for word in ("val", "valid", "Validation", "dev"):
        assert part_of(word) == "val", word
    for word in ("", "test_public", "good", "1"):
        assert part_of(word) is None, word

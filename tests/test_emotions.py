"""The emotion table says one thing about each set of action units, and names where it has it from."""

from itertools import combinations

from edge.emotions import table
from edge.evidence import UNITS
from edge.payload import info_payload
from edge.records import EMOTIONS


def test_every_emotion_has_sets_of_units_that_the_spotter_knows() -> None:
    known = {au for au, _ in UNITS}
    for emotion in EMOTIONS:
        sets = table().prototypes[emotion]
        assert sets
        assert {au for units in sets for au in units} <= known


def test_no_set_stands_for_two_emotions_on_the_same_sides() -> None:
    for one, other in combinations(EMOTIONS, 2):
        if (one in table().one_sided) == (other in table().one_sided):
            assert not {frozenset(units) for units in table().prototypes[one]} & {
                frozenset(units) for units in table().prototypes[other]
            }, (one, other)


def test_only_contempt_is_one_sided() -> None:
    assert table().one_sided == {"contempt"}


def test_the_device_publishes_which_table_its_words_come_from() -> None:
    info = info_payload(
        "lab-03", "b", version="1", purpose="test", report="emotion", model_hashes={}, topics=[]
    )
    assert info["emotion_table"] == table().version
    assert all(table().sources.values())

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrelu.core.status import Status, describe, remedy


def test_numbers_are_fixed_because_they_are_stored_in_files():
    assert {s.name: int(s) for s in Status} == {
        "OPTIMAL": 0,
        "MAX_STEPS": 1,
        "STALLED": 2,
        "PRECISION_FLOOR": 3,
        "NONFINITE": 4,
        "INVALID": 5,
        "SKIPPED": 6,
        "INFEASIBLE": 7,
        "UNBOUNDED": 8,
    }


@pytest.mark.parametrize("text", [describe, remedy])
def test_every_status_has_its_own_words(text):
    sentences = [text(status) for status in Status]
    assert len(set(sentences)) == len(Status)
    assert all(len(sentence) > 10 and not sentence.endswith(".") for sentence in sentences)


@pytest.mark.parametrize("text", [describe, remedy])
@pytest.mark.parametrize("value", [1, np.int32(1), jnp.int32(1)])
def test_words_for_integers_and_arrays(text, value):
    assert text(value) == text(Status.MAX_STEPS)


@pytest.mark.parametrize("text", [describe, remedy])
def test_an_unknown_number_is_an_error(text):
    with pytest.raises(ValueError, match="9 is not a valid Status"):
        text(9)


def test_remedies_name_the_argument_to_change():
    assert "max_steps" in remedy(Status.MAX_STEPS)
    assert "float64" in remedy(Status.PRECISION_FLOOR)
    assert "lam > 0" in remedy(Status.INVALID)
    assert "NaN" in remedy(Status.NONFINITE)

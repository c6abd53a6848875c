import pytest

from trine.cli.choices import chosen_kind, chosen_modes, chosen_retrievers, key_values, one_of, parsed_weights
from trine.errors import UnknownName, UsageError


def test_modes_come_in_their_own_order_once_each():
    assert chosen_modes(["multi-vector", "dense", "dense"]) == ["dense", "multi_vector"]
    assert chosen_modes(None) is None
    assert chosen_modes([]) is None


def test_retrievers_keep_the_order_given():
    known = ("dense", "sparse", "multi_vector", "bm25")
    assert chosen_retrievers(["bm25", "multi-vector"], known=known) == ["bm25", "multi_vector"]
    assert chosen_retrievers(None, known=known) is None


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'sparse'"):
        chosen_modes(["spares"])
    with pytest.raises(UnknownName, match="did you mean 'passage'"):
        chosen_kind("pasage")
    assert one_of("a-b", ["a-b", "a_b"], kind="thing") == "a-b"


def test_weights_are_a_name_or_a_number_per_mode():
    assert parsed_weights(None) is None
    assert parsed_weights("m3-long") == "m3-long"
    assert parsed_weights("dense=1, sparse=.3,multi-vector=0") == {"dense": 1, "sparse": 0.3, "multi_vector": 0}


@pytest.mark.parametrize(("text", "message"), [("dense=", "'dense=' is no weight"), ("dense=1,dense=2", "given twice")])
def test_weights_that_cannot_be_read_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        parsed_weights(text)


def test_settings_are_read_up_to_the_first_equals_sign():
    assert key_values(["a=1", " b =x=y", "a=2"], "--set") == {"a": "2", "b": "x=y"}
    assert key_values(None, "--set") == {}


@pytest.mark.parametrize("text", ["a", "=1", " =1"])
def test_settings_that_cannot_be_read_name_the_option_and_the_form(text):
    with pytest.raises(UsageError, match=f"--set '{text}' cannot be read; write it as K=V"):
        key_values([text], "--set", form="K=V")

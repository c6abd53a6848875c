import json

import pytest

from trine.scoring import score
from trine.testing import HashingEncoder


def test_every_passage_has_three_scores_and_their_sum(run):
    found = json.loads(run("score", "a pod", "a pod holds", "고양이", "--json").stdout)
    encoder = HashingEncoder()
    expected = score(encoder.encode(["a pod"], kind="query"), encoder.encode(["a pod holds", "고양이"], kind="passage"))
    for number, row in enumerate(found["passages"]):
        assert row["dense"] == pytest.approx(expected.dense[0, number])
        assert row["sparse"] == pytest.approx(expected.sparse[0, number])
        assert row["multi_vector"] == pytest.approx(expected.multi_vector[0, number])
        assert row["weighted"] == pytest.approx(expected.fused[0, number])
    assert found["weights"] == "m3"


def test_people_get_a_table(run):
    lines = run("score", "a pod", "a pod").stdout.splitlines()
    assert lines[0].split() == ["dense", "sparse", "multi_vector", "weighted", "passage"]
    assert lines[1].split() == ["1.0000", "2.0000", "1.0000", "2.6000", "a", "pod"]


def test_weights_can_be_given(run):
    found = json.loads(run("score", "a", "a", "--weights", "dense=2", "--json").stdout)
    assert found["passages"][0]["weighted"] == pytest.approx(2.0)
    assert run("score", "a", "a", "--weights", "m4").exit_code == 2


def test_passages_come_from_standard_input(run):
    found = json.loads(run("score", "a", "-", "--json", stdin="one\n둘\n").stdout)
    assert [row["text"] for row in found["passages"]] == ["one", "둘"]
    assert run("score", "a", "-", stdin="").exit_code == 2

"""The record of a model's training, and the card made of it."""

import json

from trine.recipes.card import CARD, RECORD, Data, earlier_stages, stage, versions, write_record
from trine.recipes.config import recipe


def one(name="bge_m3_small", **changes):
    facts = {
        "start": "시작 모델",
        "start_fingerprint": "abc",
        "data": [Data("법령", "pairs.jsonl", "pairs", 1200, "0123456789abcdef", "CC0")],
        "steps": 10,
        "seconds": 1.5,
        "metrics": {"before": {"ndcg@10": 0.25}, "after": {"ndcg@10": 0.5}},
    }
    return stage(recipe(name), **{**facts, **changes})


def test_record_and_card_say_everything(tmp_path):
    write_record(tmp_path, last=one(), earlier=[], title="모델", use="from trine import Encoder")
    record = json.loads((tmp_path / RECORD).read_text(encoding="utf-8"))
    (kept,) = record["stages"]
    assert kept["recipe"]["mode_weights"] == [1.0, 0.1, 1.0]
    assert kept["data"][0]["fingerprint"] == "0123456789abcdef"
    assert kept["versions"]["torch"] == versions()["torch"]
    card = (tmp_path / CARD).read_text(encoding="utf-8")
    assert "# 모델" in card
    assert "| 법령 | 1,200 | CC0 | 0123456789ab |" in card
    assert "| ndcg@10 | 0.2500 | 0.5000 |" in card


def test_stages_follow_each_other(tmp_path):
    first, second = tmp_path / "one", tmp_path / "two"
    first.mkdir()
    second.mkdir()
    write_record(first, last=one("retromae_small", metrics={}), earlier=[], title="a", use="x")
    write_record(second, last=one(), earlier=earlier_stages(first), title="b", use="x")
    names = [kept["recipe"]["name"] for kept in earlier_stages(second)]
    assert names == ["retromae_small", "bge_m3_small"]
    assert "not measured on a validation set" in (second / CARD).read_text(encoding="utf-8")


def test_a_model_without_a_record_has_no_stages(tmp_path):
    assert earlier_stages(tmp_path) == []
    assert earlier_stages(None) == []


def test_a_licence_that_nobody_told_is_said_to_be_unstated(tmp_path):
    write_record(tmp_path, last=one(data=[Data("a", "a", "pairs", 1, "f")]), earlier=[], title="a", use="x")
    assert "| a | 1 | not stated | f |" in (tmp_path / CARD).read_text(encoding="utf-8")

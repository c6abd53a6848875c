import json

import msgspec
import pytest

from trine.errors import CheckpointError
from trine.models import config as schema
from trine.models.config import (
    DenseConfig,
    EncoderConfig,
    Expansion,
    LayerNorm,
    MultiVectorConfig,
    Normalize,
    Projection,
    SparseConfig,
    TextConfig,
    Truncate,
)

FULL = EncoderConfig(
    text=TextConfig(
        max_length=512,
        query_max_length=32,
        passage_max_length=300,
        prompts={"query": "질문: ", "passage": ""},
        default_prompt="query",
        lower_case=True,
        markers={"query": 1, "passage": 2},
        expansion=Expansion(length=32, token_id=4, attend=True, fixed=False),
    ),
    dense=DenseConfig(
        pooling=("cls", "mean"),
        layers=(Projection(8, 4, bias=False, activation="tanh"), LayerNorm(4, epsilon=1e-6), Normalize(), Truncate(2)),
        include_prompt=False,
    ),
    sparse=SparseConfig("masked_lm", 30522, query_source="static", pooling="sum", log1p=2, dropped_ids=(0, 1)),
    multi_vector=MultiVectorConfig(layers=(Normalize(),), drop_first=True, dropped_passage_ids=(5,)),
    untrained=("sparse",),
    origin="splade",
)


def test_round_trip(tmp_path):
    path = tmp_path / "trine.json"
    path.write_bytes(FULL.to_json())
    assert EncoderConfig.read(path) == FULL
    assert FULL.to_json() == EncoderConfig.read(path).to_json()


def test_the_text_is_readable_json_with_the_prompts_as_they_are():
    text = FULL.to_json().decode("utf-8")
    assert text.endswith("}\n")
    assert '"query": "질문: "' in text
    assert json.loads(text)["dense"]["layers"][0]["kind"] == "projection"


def test_defaults_are_left_out():
    small = EncoderConfig(text=TextConfig(max_length=9), dense=DenseConfig(pooling=("mean",)))
    assert json.loads(small.to_json()) == {"text": {"max_length": 9}, "dense": {"pooling": ["mean"]}}


def test_modes_in_the_order_of_the_field():
    assert FULL.modes == ("dense", "sparse", "multi_vector")
    text = TextConfig(max_length=9)
    assert EncoderConfig(text=text, multi_vector=MultiVectorConfig()).modes == ("multi_vector",)
    assert EncoderConfig(text=text, sparse=SparseConfig("static", 5)).modes == ("sparse",)


def test_a_head_is_needed():
    with pytest.raises(CheckpointError, match="at least one of the heads dense, sparse and multi_vector"):
        EncoderConfig(text=TextConfig(max_length=9))


def test_several_cls_and_their_pooling_need_each_other():
    text, several = TextConfig(max_length=9), TextConfig(max_length=9, cls_every=4)
    EncoderConfig(text=several, dense=DenseConfig(pooling=("cls_mean",)))
    for one, pooling in ((text, "cls_mean"), (several, "cls"), (several, "mean")):
        with pytest.raises(CheckpointError, match="need each other"):
            EncoderConfig(text=one, dense=DenseConfig(pooling=(pooling,)))
    with pytest.raises(CheckpointError, match="need each other"):
        EncoderConfig(text=several, multi_vector=MultiVectorConfig())
    with pytest.raises(CheckpointError, match="at least 1"):
        EncoderConfig(text=TextConfig(max_length=9, cls_every=0), dense=DenseConfig(pooling=("cls_mean",)))


def test_only_splade_needs_the_masked_lm_head():
    assert FULL.needs_masked_lm
    text = TextConfig(max_length=9)
    assert not EncoderConfig(text=text, sparse=SparseConfig("token_linear", 5)).needs_masked_lm
    assert not EncoderConfig(text=text, dense=DenseConfig(pooling=("cls",))).needs_masked_lm


def test_configurations_cannot_be_changed():
    with pytest.raises(AttributeError):
        FULL.origin = "elsewhere"


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises((CheckpointError, FileNotFoundError)):
        EncoderConfig.read(tmp_path / "trine.json")


def strict_parts():
    return [part for part in vars(schema).values() if isinstance(part, type) and issubclass(part, schema.Strict)]


def test_every_part_of_the_schema_is_strict():
    assert len(strict_parts()) > 8
    for part in strict_parts():
        assert part.__struct_config__.forbid_unknown_fields, part
        assert part.__struct_config__.frozen, part


def test_unknown_fields_are_refused_at_every_depth():
    document = json.loads(FULL.to_json())
    places = [
        document,
        document["text"],
        document["text"]["expansion"],
        document["dense"],
        *document["dense"]["layers"],
        document["sparse"],
        document["multi_vector"],
    ]
    for place in places:
        place["surprise"] = 1
        with pytest.raises(msgspec.ValidationError, match="unknown field `surprise`"):
            msgspec.json.decode(json.dumps(document), type=EncoderConfig)
        del place["surprise"]
    assert msgspec.json.decode(json.dumps(document), type=EncoderConfig) == FULL

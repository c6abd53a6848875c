import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from models import tiny
from models.cross_encoders import BACKBONES, PAIRS
from trine.errors import CheckpointError, UnknownName, UsageError
from trine.models.rerankers.pairs import PairTokenizer, RerankerConfig, longest_first


def rows(tokens):
    return [tokens.ids[start:end].tolist() for start, end in zip(tokens.offsets, tokens.offsets[1:], strict=False)]


def test_lengths_are_those_of_the_tokenizers_library():
    """All pairs of lengths around all small rooms."""
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    for room in range(1, 12):
        backend.enable_truncation(room, strategy="longest_first")
        for first in range(16):
            for second in range(16):
                ids = backend.encode("a " * first, "b " * second).ids
                assert longest_first(first, second, room=room) == (ids.count(0), ids.count(1)), (first, second, room)


@pytest.mark.parametrize("name", [*BACKBONES, "mpnet", "distilbert"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_pairs_are_those_of_the_tokenizer(name, side):
    tokenizer = tiny.TOKENIZERS[name](tiny.MAX_LENGTH)
    tokenizer.truncation_side = side
    queries, passages = zip(*PAIRS, strict=True)
    for length in (12, 13, tiny.MAX_LENGTH):
        found = PairTokenizer(tokenizer, RerankerConfig(max_length=length))(queries, passages)
        wanted = tokenizer(
            list(queries), list(passages), truncation="longest_first", max_length=length, return_token_type_ids=True
        )
        assert rows(found) == wanted["input_ids"]
        assert found.lengths.max() == length
        assert found.attended.all()
        # What stands before the passage, counted by the tokenizer.
        for number, start in enumerate(found.prompt_lengths):
            sides = wanted.sequence_ids(number)
            assert sides[start:].count(1) == sides.count(1)
            assert 0 not in sides[start:]
            if 1 in sides:
                assert sides[start] == 1
    assert PairTokenizer(tokenizer, RerankerConfig(max_length=20)).has_types == (name in ("bert", "distilbert"))


@pytest.mark.parametrize("name", BACKBONES)
def test_the_passage_alone_gives_way(name):
    tokenizer = tiny.TOKENIZERS[name](tiny.MAX_LENGTH)
    config = RerankerConfig(max_length=20, truncation="only_second", query_max_length=15)
    pairs = PairTokenizer(tokenizer, config)
    long, short = tiny.TEXTS[-2], "search"
    plain = {text: tokenizer(text, add_special_tokens=False)["input_ids"] for text in (long, short)}
    special = len(tokenizer("a", "b")["input_ids"]) - sum(
        len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in "ab"
    )
    both, query_only, passage_only, neither = rows(pairs([long, long, short, short], [long, short, long, short]))
    assert both[1:16] == query_only[1:16] == plain[long][:15]
    assert len(both) == 20
    start = 1 + len(plain[short])
    assert passage_only[1:start] == neither[1:start] == plain[short]
    assert len(passage_only) == 20
    kept = 20 - special - len(plain[short])
    assert passage_only[-1 - kept : -1] == plain[long][:kept]
    assert len(neither) == special + 2 * len(plain[short])


def test_a_short_query_leaves_the_whole_rest_to_the_passage():
    tokenizer = tiny.TOKENIZERS["bert"](tiny.MAX_LENGTH)
    config = RerankerConfig(max_length=20, truncation="only_second")
    (row,) = rows(PairTokenizer(tokenizer, config)([tiny.TEXTS[-2]], ["a"]))
    assert len(row) == 20  # without a limit of its own the query may fill all


def test_equal_texts_are_tokenised_once():
    tokenizer = tiny.TOKENIZERS["bert"](tiny.MAX_LENGTH)
    pairs = PairTokenizer(tokenizer, RerankerConfig(max_length=20))
    given = []

    class Spy:
        def __getattr__(self, name):
            return getattr(tokenizer, name)

        def __call__(self, texts, **how):
            given.extend(texts)
            return tokenizer(texts, **how)

    pairs.tokenizer = Spy()
    found = pairs(["검색"] * 5 + ["search"], ["a", "b", "a", "b", "a", "a"])
    assert sorted(given) == sorted(["검색", "search", "a", "b"])
    assert len(found.lengths) == 6


def test_nothing_gives_nothing():
    found = PairTokenizer(tiny.TOKENIZERS["bert"](48), RerankerConfig(max_length=20))([], [])
    assert (len(found.lengths), len(found.ids), len(found.prompt_lengths)) == (0, 0, 0)


def test_lone_surrogates_are_replaced():
    pairs = PairTokenizer(tiny.TOKENIZERS["bert"](48), RerankerConfig(max_length=20))
    assert rows(pairs(["\ud800 검색"], ["\udfff"])) == rows(pairs(["\ufffd 검색"], ["\ufffd"]))


def test_lengths_without_room_are_refused():
    tokenizer = tiny.TOKENIZERS["xlm_roberta"](48)
    for config in (
        RerankerConfig(max_length=5),
        RerankerConfig(max_length=20, truncation="only_second", query_max_length=16),
        RerankerConfig(max_length=20, query_max_length=-1),
    ):
        with pytest.raises(UsageError, match=f"max_length {config.max_length} leaves no room for a passage: 4 special"):
            PairTokenizer(tokenizer, config)
    PairTokenizer(tokenizer, RerankerConfig(max_length=6))
    PairTokenizer(tokenizer, RerankerConfig(max_length=20, truncation="only_second", query_max_length=15))
    with pytest.raises(UnknownName, match="did you mean 'only_second'"):
        PairTokenizer(tokenizer, RerankerConfig(max_length=20, truncation="only_secnd"))


def test_a_tokenizer_with_segments_of_its_own_is_refused():
    tokenizer = tiny.TOKENIZERS["modernbert"](48)
    from tokenizers import processors

    special = [("[CLS]", 1), ("[SEP]", 2)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS]:2 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=special
    )
    with pytest.raises(CheckpointError, match="segment ids"):
        PairTokenizer(tokenizer, RerankerConfig(max_length=20))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $B [SEP] $A", special_tokens=special
    )
    with pytest.raises(CheckpointError, match="puts the pair"):
        PairTokenizer(tokenizer, RerankerConfig(max_length=20))


def test_types_of_numpy_are_flat():
    found = PairTokenizer(tiny.TOKENIZERS["bert"](48), RerankerConfig(max_length=20))(["a", "b c"], ["d", "e"])
    assert (found.ids.dtype, found.offsets.dtype, found.prompt_lengths.dtype) == (np.int32, np.int64, np.int64)
    assert found.offsets.tolist() == [0, *np.cumsum(found.lengths)]

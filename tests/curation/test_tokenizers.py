import unicodedata

import pytest
import transformers

from models import tiny
from trine.curation.tokenizers import BYTES, SPECIAL, train_tokenizer
from trine.errors import UnknownName, UsageError
from trine.models.config import TextConfig
from trine.models.tokenization import TextTokenizer, word_starts

ALGORITHMS = ("unigram", "bpe")
ODD = ["검색 엔진은 문서를 찾는다!", "🙂👩‍👩‍👧 이모지", "日本語と中文", "Hello, World", "x = a[0] << 2;", "שלום"]


@pytest.fixture(scope="module", params=ALGORITHMS)
def tokenizer(request):
    return train_tokenizer(tiny.CORPUS * 2, size=700, algorithm=request.param)


@pytest.mark.parametrize("text", ODD)
def test_every_text_comes_back(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == unicodedata.normalize("NFKC", text)


def test_special_tokens_stand_first_and_around(tokenizer):
    assert tokenizer.convert_ids_to_tokens(range(5)) == list(SPECIAL.values())
    assert tokenizer.convert_ids_to_tokens(range(5, 261)) == list(BYTES)
    assert tokenizer.convert_ids_to_tokens(tokenizer("")["input_ids"]) == ["[CLS]", "[SEP]"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("a", "b")["input_ids"]).count("[SEP]") == 2
    assert set(tokenizer("글")) == {"input_ids", "attention_mask"}
    assert tokenizer.model_max_length == 512
    for role, token in SPECIAL.items():
        assert getattr(tokenizer, f"{role}_token") == token


def test_decomposed_korean_is_the_same_text(tokenizer):
    for text in tiny.CORPUS[:8]:
        assert tokenizer(unicodedata.normalize("NFD", text))["input_ids"] == tokenizer(text)["input_ids"]


def test_white_space_is_one_space(tokenizer):
    assert tokenizer("검색\n\t 엔진\u00a0 ")["input_ids"] == tokenizer("검색 엔진")["input_ids"]


def test_spans_point_into_the_text(tokenizer):
    text = unicodedata.normalize("NFD", "검색 엔진은 문서를") + " 🙂 ends"
    words = TextTokenizer(tokenizer, TextConfig(max_length=64)).token_spans(text)
    assert words[:, 0].min() == 0
    assert words[:, 1].max() == len(text)
    covered = {place for start, end in words for place in range(start, end)}
    assert {place for place, letter in enumerate(text) if letter != " "} <= covered


def test_pieces_stay_within_words_and_mark_their_beginning(tokenizer):
    pieces = [piece for piece in tokenizer.get_vocab() if piece not in (*SPECIAL.values(), *BYTES)]
    assert not [piece for piece in pieces if "▁" in piece[1:]]
    starts = word_starts(tokenizer, width=len(tokenizer))
    ids = tokenizer("검색 엔진은 문서를", add_special_tokens=False)["input_ids"]
    assert starts[ids].sum() == 3


def test_frequent_words_are_single_pieces():
    for algorithm in ALGORITHMS:
        made = train_tokenizer(
            ["임베딩은 모델이", "임베딩을 모델을", "임베딩이 모델", "임베딩 검색"] * 50, size=330, algorithm=algorithm
        )
        assert "▁임베딩" in made.tokenize("임베딩 검색")


def test_it_is_saved_and_loaded(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ODD:
        assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.mask_token_id == tokenizer.mask_token_id


def test_lower_case():
    made = train_tokenizer(tiny.CORPUS, size=500, lower_case=True)
    assert made("SEARCH Engine")["input_ids"] == made("search engine")["input_ids"]
    assert not [
        piece for piece in made.get_vocab() if piece not in (*SPECIAL.values(), *BYTES) and piece != piece.lower()
    ]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_more_characters_than_room_are_written_in_bytes(algorithm):
    texts = ["".join(chr(0xAC00 + number) for number in range(3000)), "가가가 나나나 가나"]
    made = train_tokenizer(texts, size=361, algorithm=algorithm)
    assert len(made) <= 361
    assert "가" in "".join(made.tokenize("가나"))
    assert made.decode(made("뷁가")["input_ids"], skip_special_tokens=True) == "뷁가"


def test_rare_characters_get_no_piece():
    texts = ["검색 " * 1000, "뷁"]
    assert "뷁" in "".join(train_tokenizer(texts, size=300, coverage=1.0).get_vocab())
    assert "뷁" not in "".join(train_tokenizer(texts, size=300, coverage=0.999).get_vocab())


def test_texts_may_be_a_stream():
    made = train_tokenizer((text for text in tiny.CORPUS), size=500, algorithm="bpe")
    assert made.get_vocab() == train_tokenizer(tiny.CORPUS, size=500, algorithm="bpe").get_vocab()


@pytest.mark.parametrize(
    ("texts", "options", "error", "message"),
    [
        ([], {}, UsageError, "texts are empty"),
        (["", " \n"], {}, UsageError, "texts are empty"),
        ("글", {}, UsageError, "must be many strings"),
        ([None], {}, UsageError, "a text must be a string, got NoneType"),
        (["글"], {"size": 261}, UsageError, "leaves no room"),
        (["글"], {"algorithm": "unigam"}, UnknownName, "did you mean 'unigram'"),
        (["글"], {"coverage": 0.0}, UsageError, "coverage"),
    ],
)
def test_bad_input(texts, options, error, message):
    with pytest.raises(error, match=message):
        train_tokenizer(texts, **({"size": 400} | options))


def test_lone_surrogates_do_not_stop_it():
    assert len(train_tokenizer(["bad \ud800 text", "검색"], size=300)) > 261

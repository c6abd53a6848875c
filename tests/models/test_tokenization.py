import unicodedata

import numpy as np
import pytest
import tokenizers
import transformers

from models import tiny
from trine.errors import UnknownName, UsageError
from trine.models.config import Expansion, TextConfig
from trine.models.tokenization import TextTokenizer, WorkedExample, clean, word_starts


@pytest.fixture(scope="module")
def make():
    """A text tokenizer on a fresh tokenizer of the backbone's, since some settings change it."""

    def build(name="bert", **settings):
        return TextTokenizer(tiny.TOKENIZERS[name](tiny.MAX_LENGTH), TextConfig(**{"max_length": 48} | settings))

    return build


def rows(tokens):
    return [list(part) for part in np.split(tokens.ids, tokens.offsets[1:-1])]


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_ids_are_those_of_the_tokenizer(make, name):
    text = make(name)
    tokens = text(tiny.TEXTS, kind="passage")
    expected = text.tokenizer(tiny.TEXTS, truncation=True, max_length=48)["input_ids"]
    assert rows(tokens) == expected
    np.testing.assert_array_equal(tokens.lengths, [len(row) for row in expected])
    assert tokens.attended.all()
    assert tokens.padding_id == text.tokenizer.pad_token_id


@pytest.mark.parametrize("name", tiny.BACKBONES)
@pytest.mark.parametrize("length", [3, 10, 48])
def test_both_ends_survive_truncation(make, name, length):
    """A text that is cut still ends in the separator, and an exact fit is not cut."""
    text = make(name, max_length=length)
    first, last = text.tokenizer.cls_token_id, text.tokenizer.sep_token_id
    for row in rows(text(tiny.TEXTS, kind="passage")):
        assert row[0] == first
        assert row[-1] == last
        assert len(row) <= length
    whole = text.tokenizer.encode("검색 엔진은 문서를 찾아", add_special_tokens=True)
    exact = make(name, max_length=len(whole))
    assert rows(exact(["검색 엔진은 문서를 찾아"], kind="passage")) == [whole]


def test_no_texts(make):
    tokens = make()([], kind="query")
    assert len(tokens.ids) == 0
    np.testing.assert_array_equal(tokens.offsets, [0])
    assert len(tokens.prompt_lengths) == 0


def test_lengths_by_kind(make):
    text = make(query_max_length=5, passage_max_length=9)
    assert text.max_length("query") == 5
    assert text.max_length("passage") == 9
    assert text(tiny.TEXTS, kind="query").lengths.max() == 5
    assert text(tiny.TEXTS, kind="passage").lengths.max() == 9


def test_prompts_by_kind_default_and_call(make):
    text = make(prompts={"query": "질문: ", "other": "else "}, default_prompt="other")
    assert text.prompt("query") == "질문: "
    assert text.prompt("passage") == "else "
    plain = make()
    assert rows(text(["검색"], kind="query")) == rows(plain(["질문: 검색"], kind="passage"))
    assert rows(text(["검색"], kind="passage")) == rows(plain(["else 검색"], kind="passage"))
    assert rows(text(["검색"], kind="query", prompt="")) == rows(plain(["검색"], kind="passage"))
    assert rows(text(["검색"], kind="query", prompt="a ")) == rows(plain(["a 검색"], kind="passage"))


def test_a_default_prompt_that_is_not_there_suggests_the_nearest(make):
    text = make(prompts={"search_document": "x"}, default_prompt="search_documents")
    with pytest.raises(UnknownName, match="did you mean 'search_document'"):
        text(["a"], kind="passage")


@pytest.mark.parametrize("kind", ["document", "Query", "passages", None])
def test_unknown_kinds_are_refused(make, kind):
    for call in (lambda: make()(["a"], kind=kind), lambda: make().spans("a", kind=kind)):
        with pytest.raises(UnknownName, match="passage, query"):
            call()


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_prompt_lengths_count_the_tokens_in_front(make, name):
    """CLS and the prompt's own tokens, not the separator; 0 without a prompt."""
    text = make(name, prompts={"query": "Represent this: "})
    tokens = text(["검색 엔진", ""], kind="query")
    own = text.tokenizer("Represent this: ", add_special_tokens=False)["input_ids"]
    np.testing.assert_array_equal(tokens.prompt_lengths, [1 + len(own)] * 2)
    np.testing.assert_array_equal(text(["a"], kind="passage").prompt_lengths, [0])


def test_lower_case_comes_before_the_tokenizers_own_normalisation(make):
    cased, lowered = make("distilbert"), make("distilbert", lower_case=True)
    assert rows(cased(["SEARCH"], kind="passage")) != rows(cased(["search"], kind="passage"))
    assert rows(lowered(["SEARCH"], kind="passage")) == rows(cased(["search"], kind="passage"))
    again = TextTokenizer(lowered.tokenizer, lowered.config)  # a second time adds nothing
    assert str(again.tokenizer.backend_tokenizer.normalizer).count("Lowercase") == 1


def test_lower_case_keeps_spans_in_the_text(make):
    text = make("distilbert", lower_case=True)
    source = "İstanbul SEARCH"
    for start, end in text.token_spans(source):
        assert 0 <= start < end <= len(source)
    assert [source[start:end] for start, end in text.token_spans(source)] == ["İstanbul", "SEARC", "H"]


# -- markers and expansion -------------------------------------------------------------------------------------------


def test_markers_take_the_second_place_and_one_of_the_tokens(make):
    text = make(max_length=6, markers={"query": 777, "passage": 778})
    for kind, marker in (("query", 777), ("passage", 778)):
        for row in rows(text(tiny.TEXTS, kind=kind)):
            assert row[1] == marker
            assert len(row) <= 6
            assert row[-1] == text.tokenizer.sep_token_id


@pytest.mark.parametrize("attend", [False, True])
def test_expansion_fills_queries_up(make, attend):
    text = make(expansion=Expansion(length=12, token_id=4, attend=attend))
    long_text = "the index of a book " * 9
    tokens = text(["검색", long_text], kind="query")
    short, long = rows(tokens)
    plain = text.tokenizer("검색")["input_ids"]
    assert short == plain + [4] * (12 - len(plain))
    assert long == rows(make(max_length=12)([long_text], kind="passage"))[0]
    assert len(long) == 12
    np.testing.assert_array_equal(tokens.attended[:12], [True] * len(plain) + [attend] * (12 - len(plain)))
    assert rows(text(["검색"], kind="passage")) == [plain]


def test_expansion_as_a_floor_leaves_longer_queries_alone(make):
    text = make(expansion=Expansion(length=6, token_id=4, fixed=False))
    long = "the index of a database is like the index of a book"
    assert rows(text([long], kind="query")) == [text.tokenizer(long)["input_ids"]]
    assert len(rows(text(["a"], kind="query"))[0]) == 6


# -- odd input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [None, 3, b"bytes", ["nested"]])
def test_what_is_no_string_is_refused(make, wrong):
    with pytest.raises(UsageError, match=f"must be a string, got {type(wrong).__name__}"):
        make()(["fine", wrong], kind="passage")


def test_lone_surrogates_are_replaced_one_for_one(make):
    """JSON such as "\\ud83d" brings them; no tokenizer takes them."""
    broken = "검색\ud83d 엔진\udc00"
    assert clean(broken) == "검색\ufffd 엔진\ufffd"
    text = make()
    assert rows(text([broken], kind="passage")) == rows(text(["검색\ufffd 엔진\ufffd"], kind="passage"))
    assert len(text.token_spans(broken)) == len(text.token_spans(clean(broken)))
    ids, spans = text.spans(broken, kind="query")
    assert len(ids) == len(spans)
    assert clean("이모지 🙂") == "이모지 🙂"


# -- spans -----------------------------------------------------------------------------------------------------------

SPANNED = [text for text in tiny.TEXTS if len(text) < 60]


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_token_spans_cover_the_text(make, name):
    """In order, inside the text, and together all but white space and what the tokenizer's normaliser drops."""
    text = make(name)
    for source in SPANNED:
        spans = text.token_spans(source)
        assert spans.shape[1] == 2
        assert (spans >= 0).all()
        assert (spans <= len(source)).all()
        assert (np.diff(spans[:, 0]) >= 0).all()
        covered = set()
        for start, end in spans:
            covered |= set(range(start, end))
        for number in set(range(len(source))) - covered:
            assert source[number].isspace() or unicodedata.category(source[number]) in ("Cc", "Cf", "Mn"), source


def test_token_spans_are_not_truncated(make):
    source = "검색 엔진은 " * 100
    assert len(make(max_length=5).token_spans(source)) >= 200
    assert make().token_spans("").shape == (0, 2)


@pytest.mark.parametrize("name", tiny.BACKBONES)
@pytest.mark.parametrize("prompt", ["", "query: ", "검색 대상: ", "无空格"])
def test_spans_belong_to_the_ids_and_lie_in_the_text(make, name, prompt):
    text = make(name, prompts={"query": prompt})
    for source in tiny.TEXTS:
        ids, spans = text.spans(source, kind="query")
        assert list(ids) == rows(text([source], kind="query"))[0]
        assert spans.shape == (len(ids), 2)
        real = spans[spans[:, 0] >= 0]
        assert (real[:, 1] <= len(source)).all()
        assert (real[:, 0] < real[:, 1]).all()
        np.testing.assert_array_equal(spans[spans[:, 0] < 0], -1)
        np.testing.assert_array_equal(spans[[0, -1]], -1)  # the special tokens at both ends


@pytest.mark.parametrize("name", tiny.BACKBONES)
@pytest.mark.parametrize("prompt", ["", "query: "])
def test_spans_point_at_the_words(make, name, prompt):
    text = make(name, prompts={"query": prompt})
    source = "검색 index 🙂 문서를"
    _, spans = text.spans(source, kind="query")
    found = "".join(
        source[start:end] if not number or start != spans[number - 1][0] else ""
        for number, (start, end) in enumerate(spans)
        if start >= 0
    )
    assert found.replace(" ", "") == source.replace(" ", "")


def test_the_first_word_after_a_prompt_has_its_span(make):
    """Byte-level and sentencepiece tokens begin with the space before them, which is the prompt's."""
    for name in ("xlm_roberta", "modernbert"):
        _, spans = make(name, prompts={"query": "query: "}).spans("검색 엔진", kind="query")
        real = spans[spans[:, 0] >= 0]
        assert real[0][0] == 0


def test_a_token_across_the_border_keeps_the_texts_part(make):
    text = make("bert", prompts={"passage": "ind"})
    ids, spans = text.spans("ex", kind="passage")
    assert text.tokenizer.convert_ids_to_tokens(ids.tolist()) == ["[CLS]", "index", "[SEP]"]
    np.testing.assert_array_equal(spans, [[-1, -1], [0, 2], [-1, -1]])


@pytest.mark.parametrize("normalizer", [None, "NFC", "NFKC"])
@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "modernbert"])
def test_decomposed_letters_are_covered_whole(make, name, normalizer):
    """Also by a normaliser that composes them, which points at their first code point only."""
    text = make(name)
    if normalizer is not None:
        text.tokenizer.backend_tokenizer.normalizer = getattr(tokenizers.normalizers, normalizer)()
    source = unicodedata.normalize("NFD", "검색 엔진 café 닭값")
    for spans in (text.spans(source, kind="passage")[1], text.token_spans(source)):
        covered = set()
        for start, end in spans:
            covered |= set(range(start, end))
        left = "".join(letter for number, letter in enumerate(source) if number not in covered)
        assert left.strip() == ""


def test_decomposed_words_are_the_spans_of_their_tokens(make):
    text = make("xlm_roberta")
    text.tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.NFKC()
    source = unicodedata.normalize("NFD", "검색 엔진은")
    words = [unicodedata.normalize("NFC", source[start:end]) for start, end in text.token_spans(source)]
    assert words == ["검색", "엔진은"]


def test_markers_and_expansion_have_no_span(make):
    text = make(markers={"query": 777}, expansion=Expansion(length=8, token_id=4))
    ids, spans = text.spans("검색", kind="query")
    assert len(ids) == 8
    np.testing.assert_array_equal(np.flatnonzero(spans[:, 0] >= 0), [2])
    assert tuple(spans[2]) == (0, 2)


def test_truncated_texts_have_spans_for_what_is_left(make):
    text = make(max_length=6)
    source = "the index of a database is like the index of a book"
    ids, spans = text.spans(source, kind="passage")
    assert len(ids) == 6
    assert [source[start:end] for start, end in spans[1:-1]] == ["the", "index", "of", "a"]


def test_stripping_moves_spans_along(make):
    text = make(strip=True, prompts={"query": "  q: "})
    for source, kind in (("  검색 ", "passage"), ("  검색 ", "query"), ("검색", "query")):
        _, spans = text.spans(source, kind=kind)
        assert [source[start:end] for start, end in spans if start >= 0] == ["검색"]


@pytest.mark.parametrize("name", ["bert", "xlm_roberta", "distilbert", "mpnet"])
def test_word_starts_are_where_the_tokenizer_begins_a_word(name):
    tokenizer = tiny.TOKENIZERS[name](tiny.MAX_LENGTH)
    starts = word_starts(tokenizer, width=len(tokenizer))
    for text in tiny.CORPUS:
        encoded = tokenizer(text, add_special_tokens=False)
        words = encoded.word_ids()
        expected = [place == 0 or words[place] != words[place - 1] for place in range(len(words))]
        assert starts[encoded["input_ids"]].tolist() == expected


def test_byte_level_words_begin_with_a_space():
    tokenizer = tiny.TOKENIZERS["modernbert"](tiny.MAX_LENGTH)
    starts = word_starts(tokenizer, width=len(tokenizer) + 3)
    ids = tokenizer(" 한국어는 교착어라서 search", add_special_tokens=False)["input_ids"]
    assert starts[ids].sum() == 3
    assert starts[-3:].all()


def test_a_tokenizer_that_marks_nothing_has_words_of_one_token():
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    assert word_starts(transformers.PreTrainedTokenizerFast(tokenizer_object=backend), width=3).all()


# -- ends, instructions and what stands behind a text ----------------------------------------------------------------


@pytest.mark.parametrize("length", [3, 7, 48])
@pytest.mark.parametrize(
    ("name", "first", "last"), [("mistral", 1, 2), ("qwen3", 1, 0), ("qwen3", 1, 2), ("gemma3", 2, 1), ("bert", 4, 3)]
)
def test_both_ends_are_there_once_and_after_truncation(make, name, first, last, length):
    """Also a tokenizer that puts neither, or another one, gets them, once."""
    text = make(name, max_length=length, first_id=first, last_id=last)
    plain = make(name)
    for source, row in zip(tiny.TEXTS, rows(text(tiny.TEXTS, kind="query")), strict=True):
        assert (row[0], row[-1]) == (first, last)
        assert len(row) <= length
        body = plain.tokenizer(source, add_special_tokens=False)["input_ids"]
        inner = [number for number in row if number not in (first, last, *plain.tokenizer.all_special_ids)]
        assert inner == [number for number in body if number not in plain.tokenizer.all_special_ids][: len(inner)]
    again = TextTokenizer(text.tokenizer, text.config)
    assert rows(again(tiny.TEXTS, kind="query")) == rows(text(tiny.TEXTS, kind="query"))


def test_ends_are_saved_with_the_tokenizer(make, tmp_path):
    text = make("mistral", first_id=1, last_id=2)
    text.tokenizer.save_pretrained(tmp_path)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path)("검색")["input_ids"][-1] == 2


def test_spans_beside_ends_and_suffixes(make):
    for name, last in (("mistral", 2), ("qwen3", 0), ("gemma3", 1)):
        settings = {"prompts": {"query": "Instruct: 뜻\nQuery: "}, "suffixes": {"query": "\n<response>"}}
        text = make(name, last_id=last, max_length=60, **settings)
        source = "검색 index 문서를"
        ids, spans = text.spans(source, kind="query")
        assert list(ids) == rows(text([source], kind="query"))[0]
        covered = {place for start, end in spans if start >= 0 for place in range(start, end)}
        assert "".join(source[place] for place in sorted(covered)).replace(" ", "") == source.replace(" ", "")
        assert max(end for _, end in spans) <= len(source)


def test_instructions_stand_in_the_models_template(make):
    text = make("mistral", instruction_prompt="Instruct: {instruction}\nQuery: ")
    assert text.instructed(" 찾는다 {query} ") == "Instruct: 찾는다 {query}\nQuery: "
    for empty in ("", "  "):
        with pytest.raises(UsageError, match="instruction is empty"):
            text.instructed(empty)
    with pytest.raises(UsageError, match="no template for examples"):
        text.instructed("찾는다", examples=[WorkedExample("q", "r")])
    with pytest.raises(UsageError, match="no template for an instruction"):
        make().instructed("찾는다")


def test_examples_stand_in_front(make):
    text = make("mistral", instruction_prompt="<{instruction}>", example_prompt="[{instruction}|{query}|{response}]")
    examples = [WorkedExample("{response}", "답"), WorkedExample("q", "r", "다른 일")]
    assert text.instructed("뜻", examples=examples) == "[뜻|{response}|답][다른 일|q|r]<뜻>"


@pytest.mark.parametrize(("name", "last"), [("mistral", 2), ("qwen3", 0), ("gemma3", 1), ("bert", 3)])
def test_a_suffix_survives_truncation(make, name, last):
    """What a chat model answers after must end the text, however long that is; passages have none."""
    text = make(name, max_length=30, suffixes={"query": " index."}, last_id=last)
    tail = text.tokenizer(" index.", add_special_tokens=False)["input_ids"][-1]
    for row in rows(text([*tiny.TEXTS, "긴글" * 99, "日本" * 99, "🙂" * 99], kind="query")):
        assert row[-1] == last
        assert row[-2] == tail
        assert len(row) <= 30
    assert rows(text(["검색"], kind="passage"))[0][-2] != tail


def test_texts_are_shortened_by_words(make):
    """To the ratio of the limit and the tokens, again until they fit; white space inside becomes single spaces."""
    text = make("qwen3", text_tokens=10, max_length=40)
    source = "index  book\nsearch database " * 9
    (row,) = rows(text([source], kind="passage"))
    assert len(row) <= 11
    kept = text.tokenizer.decode(row[:-1])
    assert kept == " ".join(source.split()[: len(kept.split())])
    assert rows(text(["index  book"], kind="passage")) == rows(make("qwen3")(["index  book"], kind="passage"))
    ids, spans = text.spans(source, kind="passage")
    assert list(ids) == row
    words = "".join(source[start:end] for start, end in spans if start >= 0)
    assert "".join(words.split()) == "".join(kept.split())


def test_a_long_word_is_cut_where_no_word_fits(make):
    text = make("qwen3", text_tokens=6, max_length=40)
    (row,) = rows(text(["긴글" * 50], kind="passage"))
    assert 2 < len(row) <= 8


def test_the_pooled_part_counted_by_the_text(make):
    """As many positions at the end as the text and its suffix have alone: the prompt's border falls elsewhere."""
    settings = {"prompts": {"query": "Find: "}, "suffixes": {"query": " END"}, "strip": "end"}
    text = make("mistral", prompt_counted_by="text", **settings)
    sources = ["검색  ", "", "  book"]
    tokens = text(sources, kind="query")
    for source, length, prompt in zip(sources, tokens.lengths, tokens.prompt_lengths, strict=True):
        alone = text.tokenizer(source.rstrip() + " END", add_special_tokens=False)["input_ids"]
        assert length - prompt == len(alone)
    assert (make("mistral", **settings)(sources, kind="query").prompt_lengths != tokens.prompt_lengths).any()
    bare = make("mistral", prompt_counted_by="text")(["", "검색"], kind="query")
    np.testing.assert_array_equal(bare.prompt_lengths, [0, 1])  # nothing to pool but <s>; then all but <s>


def test_white_space_behind_a_text_alone(make):
    text, plain = make("qwen3", strip="end", prompts={"query": " a "}), make("qwen3")
    assert rows(text(["  검색 \n"], kind="query")) == rows(plain([" a   검색"], kind="query"))


def test_ends_of_a_tokenizer_that_knows_few_letters():
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"<e>": 0, "나": 1}, []))
    few = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>", pad_token="<e>")
    text = TextTokenizer(few, TextConfig(max_length=9, last_id=0))
    assert rows(text(["나a나", ""], kind="query")) == [[1, 1, 0], [0]]
    none = tokenizers.Tokenizer(tokenizers.models.BPE({}, []))
    with pytest.raises(UsageError, match="its ends cannot be set"):
        TextTokenizer(transformers.PreTrainedTokenizerFast(tokenizer_object=none), TextConfig(max_length=9, last_id=0))

import itertools
import json

import numpy as np
import pytest

from models import tiny
from trine.data.examples import ExampleList, open_examples
from trine.data.sampling import Sampling
from trine.errors import UnknownName, UsageError
from trine.training.batches import Ingredient
from trine.training.text_batches import TextBatches, Texts
from trine.types import Example

LONG = "검색 엔진은 문서를 찾아 순위를 매긴다. " * 20


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder("bert")


@pytest.fixture
def build(encoder):
    made = []

    def make(texts, *, sampling=None, how=None, **more):
        source = (
            ExampleList([Example(text, (text,)) for text in texts], name="글") if isinstance(texts, list) else texts
        )
        made.append(
            TextBatches([source], encoder=encoder, sampling=sampling or Sampling(batch_size=4), texts=how, **more)
        )
        return made[-1]

    yield make
    for batches in made:
        batches.close()


def rows(batch):
    tokens = batch.sequences
    return [tokens.ids[a:b].tolist() for a, b in itertools.pairwise(tokens.offsets)]


def expected(encoder, text):
    return encoder.tokenizer(text, truncation=False, verbose=False)["input_ids"]


def test_short_texts_come_as_the_tokenizer_makes_them(build, encoder):
    found = [row for batch in build(tiny.CORPUS, sampling=Sampling(batch_size=4, max_epochs=1)) for row in rows(batch)]
    assert sorted(found) == sorted(expected(encoder, text) for text in tiny.CORPUS)


def test_cutting_keeps_every_token(build, encoder):
    batches = build([LONG, "짧은 글"], sampling=Sampling(batch_size=2, steps=1), how=Texts(max_length=16, long="cut"))
    (batch,) = batches
    found = rows(batch)
    whole = expected(encoder, LONG)
    pieces = [row for row in found if row != expected(encoder, "짧은 글")]
    assert all(row[0] == whole[0] and row[-1] == whole[-1] for row in found)
    assert max(map(len, found)) == 16
    assert [number for row in pieces for number in row[1:-1]] == whole[1:-1]
    assert batches.cut_texts == 1
    assert batch.tokens == sum(map(len, found))


def test_short_ends_are_dropped_where_asked(build, encoder):
    whole = len(expected(encoder, LONG)) - 2
    room = next(room for room in range(14, 40) if 0 < whole % room < 8)
    for shortest, more in ((1, 1), (whole % room, 1), (whole % room + 1, 0)):
        how = Texts(max_length=room + 2, long="cut", shortest=shortest)
        (batch,) = build([LONG], sampling=Sampling(batch_size=1, steps=1), how=how)
        assert len(rows(batch)) == whole // room + more


def test_a_window_moves_with_the_epoch_and_truncation_does_not(build, encoder):
    whole = expected(encoder, LONG)
    starts = set()
    for long in ("window", "truncate"):
        batches = build([LONG], sampling=Sampling(batch_size=1, max_epochs=8), how=Texts(max_length=16, long=long))
        found = [rows(batch)[0] for batch in batches]
        assert {len(row) for row in found} == {16}
        for row in found:
            assert any(whole[1 + n : 15 + n] == row[1:-1] for n in range(len(whole) - 15))
        starts = {tuple(row) for row in found}
        assert (len(starts) > 3) == (long == "window")
    assert starts == {(*whole[:15], whole[-1])}


def test_packing_fills_sequences_and_loses_nothing(build, encoder):
    texts = ["검색", "문서", "순위", "엔진", "인덱스", "색인", "search", "engine"]
    (batch,) = build(texts, sampling=Sampling(batch_size=8, steps=1), how=Texts(max_length=12, pack=True))
    separator = expected(encoder, "a")[-1]
    found = rows(batch)
    assert len(found) < 8
    assert max(map(len, found)) <= 12
    contents = []
    for row in found:
        assert row[0] == expected(encoder, "a")[0]
        assert row[-1] == separator
        inner = row[1:]
        while inner:
            end = inner.index(separator)
            contents.append(inner[:end])
            inner = inner[end + 1 :]
    assert sorted(contents) == sorted(expected(encoder, text)[1:-1] for text in texts)


def test_packing_counts_the_separator(build, encoder):
    texts = ["검색 " * 5, "문서 " * 5]
    length = len(expected(encoder, texts[0])) - 2
    assert len(expected(encoder, texts[1])) - 2 == length
    for room, count in ((2 * length, 2), (2 * length + 1, 1)):
        how = Texts(max_length=room + 2, pack=True)
        (batch,) = build(texts, sampling=Sampling(batch_size=2, steps=1), how=how)
        assert len(rows(batch)) == count


@pytest.mark.parametrize("how", [Texts(max_length=16), Texts(max_length=16, long="cut", pack=True)])
def test_a_resumed_run_goes_on_exactly(build, how):
    def fresh():
        return build([*tiny.CORPUS, LONG], sampling=Sampling(batch_size=3, max_epochs=2, seed=1), how=how)

    reference, first = fresh(), fresh()
    whole = [(rows(batch), batch.seed, batch.step) for batch in reference]
    begun = [(rows(batch), batch.seed, batch.step) for batch in itertools.islice(first, 4)]
    state = json.loads(json.dumps(first.state_dict()))
    second = fresh()
    second.load_state_dict(state)
    assert begun + [(rows(batch), batch.seed, batch.step) for batch in second] == whole
    assert second.cut_texts == reference.cut_texts >= 2
    assert len({seed for _, seed, _ in whole}) == len(whole) == fresh().total_steps


def test_ranks_take_shares_with_seeds_of_their_own(build):
    def run(rank, ranks):
        return next(build(tiny.CORPUS, sampling=Sampling(batch_size=8, ranks=ranks), rank=rank))

    left, right = run(0, 2), run(1, 2)
    assert rows(left) + rows(right) == rows(run(0, 1))
    assert left.seed != right.seed


def test_files_of_plain_text_are_read(build, tmp_path):
    (tmp_path / "말뭉치.txt").write_text("\n\n".join(tiny.CORPUS), "utf-8")
    batch = next(build(open_examples(tmp_path / "말뭉치.txt"), sampling=Sampling(batch_size=16)))
    assert (batch.source, len(rows(batch))) == ("말뭉치", 16)
    assert batch.sequences.prompt_lengths.tolist() == [0] * 16
    assert batch.sequences.attended.all()
    assert np.array_equal(batch.sequences.lengths, [len(row) for row in rows(batch)])


@pytest.mark.parametrize("name", tiny.BACKBONES)
def test_every_tokenizer_frames_texts_as_it_does_itself(name):
    encoder = tiny.encoder(name)
    source = ExampleList([Example(text, (text,)) for text in tiny.CORPUS], name="글")
    batches = TextBatches([source], encoder=encoder, sampling=Sampling(batch_size=16))
    found = rows(next(batches))
    batches.close()
    framed = [expected(encoder, text) for text in tiny.CORPUS]
    fitting = sorted(row for row in framed if len(row) <= tiny.MAX_LENGTH)
    assert sorted(row for row in found if row in framed) == fitting
    assert len(fitting) >= 8
    for row in found:
        assert row[0] == framed[0][0]
        assert row[-1] == framed[0][-1]


def test_settings_without_effect_are_refused(build):
    with pytest.raises(UnknownName, match="did you mean 'truncate'"):
        Texts(long="truncat")
    with pytest.raises(UsageError, match="shortest=5 has no effect"):
        Texts(shortest=5)
    for length in (2, 49):
        with pytest.raises(UsageError, match=f"max_length {length} must be above the 2 special tokens"):
            build(tiny.CORPUS, how=Texts(max_length=length))
    with pytest.raises(UsageError, match="rank 1"):
        build(tiny.CORPUS, rank=1)
    with pytest.raises(UsageError, match="weight and cap only"):
        TextBatches(
            [Ingredient(ExampleList([Example("a", ("a",))], name="a"), group_size=2)],
            encoder=tiny.encoder("bert"),
            sampling=Sampling(batch_size=1),
        )

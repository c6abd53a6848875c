import itertools
import json
import threading

import numpy as np
import pytest
import torch

from models import tiny
from trine.data.examples import ExampleList, open_examples, text_key
from trine.data.memory import MemoryModel
from trine.data.sampling import Sampling
from trine.errors import DataError, UsageError
from trine.models.config import Expansion, TextConfig
from trine.models.tokenization import TextTokenizer
from trine.objectives.base import Embedded, Losses
from trine.training.batches import Ingredient, PairBatches, Pairing, joined, step_seed, tokenise
from trine.training.drawing import Grouping
from trine.training.embedding import embedder
from trine.training.steps import cached_step, full_step
from trine.types import Example

WORDS = " ".join(tiny.CORPUS).split()


def examples(count=12, *, seed=0, **more):
    generator = np.random.default_rng(seed)

    def text(number):
        return f"{seed}.{number} " + " ".join(generator.choice(WORDS, int(generator.integers(1, 12))))

    return [Example(text(n), (text(100 + n),), (text(200 + n), text(300 + n)), **more) for n in range(count)]


def source(name="자료", **more):
    return ExampleList(examples(**more), name=name)


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder("bert")


@pytest.fixture
def build(encoder):
    made = []

    def make(*ingredients, sampling=None, encoder=encoder, **more):
        batches = PairBatches(ingredients, encoder=encoder, sampling=sampling or Sampling(batch_size=4), **more)
        made.append(batches)
        return batches

    yield make
    for batches in made:
        batches.close()


def token_rows(chunks):
    """The texts of a side, in its order, as lists of ids."""
    rows = {}
    for chunk in chunks:
        for number, ids, mask in zip(chunk.rows, chunk.batch.ids_BL, chunk.batch.mask_BL, strict=True):
            rows[int(number)] = ids[mask].tolist()
    return [rows[number] for number in range(len(rows))]


def pair_of(step, rows=slice(None)):
    return step.work.pair(Embedded(torch.zeros(1, 2)), Embedded(torch.ones(1, 2)), rows)


def fingerprint(step):
    return (
        step.source,
        step.step,
        step.tokens,
        [chunk.seed for chunk in (*step.work.queries, *step.work.passages)],
        token_rows(step.work.queries),
        token_rows(step.work.passages),
        pair_of(step).passage_keys_P.tolist(),
    )


def test_a_step_holds_the_drawn_texts_in_groups(build, encoder):
    own = source()
    step = next(build(own, pairing=Pairing(Grouping(group_size=3), chunk_tokens=40)))
    by_key = {text_key(example.query): example for example in own}
    batch = pair_of(step)
    found = [by_key[key] for key in batch.query_keys_Q.tolist()]
    assert token_rows(step.work.queries) == [
        encoder.text([example.query], kind="query").ids.tolist() for example in found
    ]
    groups = batch.passage_keys_P.reshape(4, 3).tolist()
    assert [group[0] for group in groups] == [text_key(example.positives[0]) for example in found]
    assert [set(group[1:]) for group in groups] == [set(map(text_key, example.negatives)) for example in found]
    texts = {text_key(text): text for example in own for text in (*example.positives, *example.negatives)}
    assert token_rows(step.work.passages) == [
        encoder.text([texts[key]], kind="passage").ids.tolist() for key in batch.passage_keys_P.tolist()
    ]
    assert step.tokens == sum(map(len, token_rows(step.work.queries) + token_rows(step.work.passages)))
    assert (step.queries, batch.group_size, batch.in_batch, batch.teacher_scores_RG) == (4, 3, True, None)
    assert max(chunk.batch.ids_BL.numel() for chunk in step.work.passages) <= 40
    assert len(step.work.passages) > 1


def test_a_step_trains_the_same_whole_and_in_chunks(build, encoder):
    def objective(batch):
        scores = batch.queries.dense_ND @ batch.passages.dense_ND.T
        target = torch.arange(len(batch.queries)) * batch.group_size
        return Losses(torch.nn.functional.cross_entropy(scores, target), {})

    gradients = []
    for run, budget in ((full_step, None), (cached_step, 48)):
        encoder.zero_grad()
        step = next(build(source(), pairing=Pairing(Grouping(group_size=2), chunk_tokens=budget), modes=["dense"]))
        embed = embedder(encoder, modes=["dense"], width=len(encoder.tokenizer))
        run(embed, step.work, objective=objective)
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None]))
    encoder.zero_grad()
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    assert gradients[0].abs().max() > 0


@pytest.mark.parametrize("stop", [0, 1, 5])
def test_a_resumed_run_gives_the_same_batches_and_seeds(build, stop):
    def fresh():
        sampling = Sampling(batch_size_at=MemoryModel(300, 10, 1).batch_size, max_epochs=3, seed=3)
        pairing = Pairing(Grouping(group_size=4, shuffle_probability=0.5), chunk_tokens=64)
        return build(source("가"), source("나", count=7, seed=1), sampling=sampling, pairing=pairing)

    whole = [fingerprint(step) for step in fresh()]
    assert len(whole) == fresh().total_steps > 6
    first = fresh()
    begun = [fingerprint(step) for step in itertools.islice(first, stop)]
    state = json.loads(json.dumps(first.state_dict()))
    second = fresh()
    next(second)
    second.load_state_dict(state)
    assert begun + [fingerprint(step) for step in second] == whole


def test_ranks_share_one_plan(build):
    def run(rank, ranks):
        sampling = Sampling(batch_size=4, ranks=ranks, seed=5, steps=3)
        return list(build(source(), sampling=sampling, rank=rank, pairing=Pairing(Grouping(group_size=2))))

    alone, parts = run(0, 1), [run(0, 2), run(1, 2)]
    for whole, left, right in zip(alone, *parts, strict=True):
        assert token_rows(whole.work.queries) == token_rows(left.work.queries) + token_rows(right.work.queries)
        assert token_rows(whole.work.passages) == token_rows(left.work.passages) + token_rows(right.work.passages)
        for side in (left, right):
            assert torch.equal(pair_of(side).query_keys_Q, pair_of(whole).query_keys_Q)
            assert torch.equal(pair_of(side).passage_keys_P, pair_of(whole).passage_keys_P)
        seeds = [chunk.seed for step in (left, right) for chunk in (*step.work.queries, *step.work.passages)]
        assert len(set(seeds)) == len(seeds)
        assert pair_of(right, slice(2, 4)).rows == slice(2, 4)


def test_teacher_scores_are_those_of_this_rank(build):
    scored = [Example(f"q{n}", (f"p{n}",), (f"n{n}", f"m{n}"), (10.0 + n,), (n + 0.25, n + 0.5)) for n in range(4)]
    own = ExampleList(scored, name="s")
    pairing = Pairing(Grouping(group_size=3, teacher_scores=True))
    scores = {
        text_key(t): s
        for e in scored
        for t, s in zip((*e.positives, *e.negatives), (*e.positive_scores, *e.negative_scores), strict=True)
    }
    for rank in range(2):
        batch = pair_of(next(build(own, sampling=Sampling(batch_size=4, ranks=2), rank=rank, pairing=pairing)))
        expected = [scores[key] for key in batch.passage_keys_P.tolist()][rank * 6 : rank * 6 + 6]
        assert batch.teacher_scores_RG.flatten().tolist() == expected
    with pytest.raises(DataError, match="teacher scores are asked for"):
        build(source(), pairing=pairing)


def test_prompts_of_the_example_go_before_those_of_the_source(build, encoder):
    mixed = [Example("검색 엔진", ("문서 순위",)), Example("검색", ("문서",), query_prompt="질문: ", passage_prompt="")]
    own = Ingredient(ExampleList(mixed, name="m"), query_prompt="query: ", passage_prompt="passage: ", in_batch=False)
    step = next(build(own, sampling=Sampling(batch_size=2)))
    order = [0, 1] if pair_of(step).query_keys_Q[0] == text_key("검색 엔진") else [1, 0]
    expected = [("검색 엔진", "query: ", "문서 순위", "passage: "), ("검색", "질문: ", "문서", "")]
    for number, place in enumerate(order):
        query, before, passage, ahead = expected[place]
        assert token_rows(step.work.queries)[number] == encoder.text([query], kind="query", prompt=before).ids.tolist()
        assert (
            token_rows(step.work.passages)[number] == encoder.text([passage], kind="passage", prompt=ahead).ids.tolist()
        )
    assert pair_of(step).in_batch is False


def test_each_source_has_its_own_group_size(build):
    batches = build(
        Ingredient(source("a"), group_size=1),
        Ingredient(source("b", seed=1), group_size=4),
        sampling=Sampling(batch_size=4, steps=20),
    )
    sizes = {step.source: (pair_of(step).group_size, len(pair_of(step).passage_keys_P)) for step in batches}
    assert sizes == {"a": (1, 4), "b": (4, 16)}


def test_twins_are_the_same_tokens_under_other_dropout(build, encoder):
    texts = ExampleList([Example(text, (text,)) for text in tiny.CORPUS], name="t")
    step = next(build(texts, pairing=Pairing(twins=True)))
    assert token_rows(step.work.queries) == token_rows(step.work.passages)
    assert step.work.queries[0].seed != step.work.passages[0].seed
    assert step.work.queries[0].batch.kind == "passage"
    assert torch.equal(pair_of(step).query_keys_Q, pair_of(step).passage_keys_P)
    with pytest.raises(UsageError, match="group_size must be 1"):
        build(texts, pairing=Pairing(Grouping(group_size=2), twins=True))


def test_texts_longer_than_the_model_are_cut_and_counted(build):
    long = "검색 엔진은 문서를 찾아 " * 40
    own = ExampleList([Example("짧다", ("짧은 글",), (long,)), Example(long + "?", ("글",), ("다른 글",))], name="긴글")
    batches = build(own, sampling=Sampling(batch_size=2), pairing=Pairing(Grouping(group_size=2)))
    step = next(batches)
    assert max(map(len, token_rows(step.work.passages))) == tiny.MAX_LENGTH
    assert (batches.cut.queries, batches.cut.passages) == (1, 1)
    assert batches.cut.first.startswith("긴글[")
    state = json.loads(json.dumps(batches.state_dict()))
    again = build(own, sampling=Sampling(batch_size=2), pairing=Pairing(Grouping(group_size=2)))
    again.load_state_dict(state)
    next(again)
    assert (again.cut.queries, again.cut.passages) == (2, 2)


def test_a_text_that_just_fits_is_not_counted_as_cut(build, encoder):
    own = " ".join(["문서"] * 100)
    fits = next(
        " ".join(["문서"] * n) for n in range(100, 0, -1) if len(encoder.token_spans(" ".join(["문서"] * n))) + 2 <= 48
    )
    assert len(encoder.text([fits], kind="passage").ids) == 48
    batches = build(
        ExampleList([Example("q", (fits,)), Example("r", (own,))], name="x"), sampling=Sampling(batch_size=2)
    )
    next(batches)
    assert batches.cut.passages == 1


def test_expanded_queries_are_not_taken_for_cut_ones(build):
    text = TextConfig(max_length=48, query_max_length=32, expansion=Expansion(length=16, token_id=4, fixed=True))
    encoder = tiny.encoder("bert", text=text)
    own = ExampleList([Example("a", ("b",)), Example("검색 엔진은 문서를 찾아 " * 20, ("c",))], name="x")
    batches = build(own, encoder=encoder, sampling=Sampling(batch_size=2))
    step = next(batches)
    assert {len(row) for row in token_rows(step.work.queries)} == {16}
    assert batches.cut.queries == 1


def test_lengths_group_batches_by_tokens(build):
    short = [Example(f"q{n}", (f"{n}",)) for n in range(16)]
    long = [Example(f"r{n}", (f"{n} " + "검색 엔진은 문서를 찾아 " * 4,)) for n in range(16)]
    batches = build(ExampleList(short + long, name="x"), sampling=Sampling(batch_size=8, max_epochs=1, boundaries=[10]))
    widths = [[len(row) for row in token_rows(step.work.passages)] for step in batches]
    assert len(widths) == 4
    assert all(max(width) < 10 or min(width) > 10 for width in widths)


def test_evaluation_may_tokenise_while_batches_are_prepared(build, encoder):
    backend = encoder.tokenizer.backend_tokenizer
    backend.no_truncation()
    batches = build(source(count=60), sampling=Sampling(batch_size=20), pairing=Pairing(Grouping(group_size=3)))
    next(batches)
    # A tokenizer that two threads share says "Already borrowed" when one of them sets its truncation.
    assert backend.truncation is None
    errors = []

    def evaluate():
        try:
            for number in range(60):
                encoder.text(tiny.CORPUS * 4, kind="query" if number % 2 else "passage")
                encoder.token_spans(tiny.CORPUS[0])
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=evaluate)
    thread.start()
    for _ in range(20):
        next(batches)
    thread.join()
    assert errors == []


def test_a_file_broken_under_way_names_the_line_and_training_can_go_on(build, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"query": "q{n}", "positive": "{"p" * 50}{n}"}}\n' for n in range(8)))
    own = open_examples(path)
    whole = path.read_bytes()
    batches = build(own, sampling=Sampling(batch_size=4, max_epochs=4))
    first = fingerprint(next(batches))
    path.write_bytes(b"x" * len(whole))
    with pytest.raises(DataError, match=r"a.jsonl:\d: not valid JSON"):
        list(batches)
    path.write_bytes(whole)
    rest = [fingerprint(step) for step in batches]
    reference = build(open_examples(path), sampling=Sampling(batch_size=4, max_epochs=4))
    expected = [fingerprint(step) for step in reference]
    assert expected[0] == first
    assert expected[-len(rest) :] == rest


def test_one_after_the_other_or_joined_the_tokens_are_the_same(encoder):
    texts, prompts = ["가", "검색 엔진", "a b c", ""], [None, "질문: ", "", "질문: "]
    text = TextTokenizer(encoder.tokenizer, encoder.config.text)
    found = tokenise(text, texts, prompts=prompts, kind="query")
    alone = [text([one], kind="query", prompt=prompt) for one, prompt in zip(texts, prompts, strict=True)]
    expected = joined(alone, order=np.arange(4))
    for name in ("ids", "offsets", "attended", "prompt_lengths"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert found.offsets.tolist() == np.cumsum([0, *(len(part.ids) for part in alone)]).tolist()


def test_seeds_depend_on_the_place_alone():
    seeds = {
        step_seed(s, step=t, rank=r, side=k)
        for s, t, r, k in itertools.product(range(3), range(50), range(3), range(2))
    }
    assert len(seeds) == 900
    assert step_seed(1, step=2, rank=0) == step_seed(1, step=2, rank=0) < 2**62


def test_a_rank_beyond_the_ranks_is_refused(build):
    with pytest.raises(UsageError, match="rank 2 is not one of the 2"):
        build(source(), sampling=Sampling(batch_size=4, ranks=2), rank=2)

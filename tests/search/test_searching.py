import pytest

from search.doubles import ids
from trine.errors import CollectionError, UnknownName, UsageError
from trine.search.collection import Collection
from trine.search.fusion import FUSIONS, RETRIEVERS
from trine.testing import HashingEncoder
from trine.types import Document


@pytest.mark.parametrize("retriever", RETRIEVERS)
def test_each_retriever_alone_is_ranked_by_its_own_score(collection, documents, retriever):
    collection.add(documents)
    hits = collection.search("Cats sleep", retrievers=[retriever])
    assert hits[0].passage.document_id == "cats"
    assert [hit.scores for hit in hits] == [{retriever: hit.score} for hit in hits]
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_each_fusion_finds_the_obvious(collection, documents, fusion):
    collection.add(documents)
    assert ids(collection.search("나무는 북쪽에서", fusion=fusion))[0] == "나무"
    assert len(collection.search("나무는 북쪽에서", fusion=fusion, k=2)) == 2


def test_terms_show_what_matched_and_how_much(collection, documents, encoder):
    collection.add(documents)
    hit = collection.search("trees grow fast", retrievers=["dense", "sparse"])[0]
    assert hit.terms == {label: 1.0 for label in sorted(f"#{encoder._id(word)}" for word in ("trees", "grow"))}
    hit = collection.search("나무는 자란다", retrievers=["bm25", "dense"])[0]
    assert sum(hit.terms.values()) == pytest.approx(hit.scores["bm25"], rel=1e-5)
    assert list(hit.terms.values()) == sorted(hit.terms.values(), reverse=True)
    assert collection.search("trees", retrievers=["dense"])[0].terms == {}


def test_several_queries_at_once_give_what_each_gives(collection, documents):
    collection.add(documents)
    queries = ["Cats", "나무는", "nothing of it"]
    together = collection.search_many(queries)
    for hits, query in zip(together, queries, strict=True):
        alone = collection.search(query)
        assert ids(hits) == ids(alone)
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in alone])
    assert collection.search_many([]) == []


def test_filters_of_every_form(collection, documents):
    collection.add(documents)
    query = "Cats 고양이는 Trees 나무는"
    for filters, expected in [
        ("lang=ko", {"고양이", "나무"}),
        ({"lang": "ko", "year": {">": 2020}}, {"고양이"}),
        (["year>=2020", "year<2022"], {"cats", "고양이"}),
        ({"draft": True}, {"trees"}),
        ({"note": None}, {"나무"}),
        ("lang!=ko", {"cats", "trees"}),
        ("lang=fr", set()),
    ]:
        for retrievers in (None, ["dense"], ["sparse"], ["bm25"], ["multi_vector"]):
            found = set(ids(collection.search(query, filters=filters, retrievers=retrievers)))
            assert found == expected, (filters, retrievers)
    with pytest.raises(UsageError, match="did you mean 'lang'"):
        collection.search("x", filters="language=ko")


def test_searches_that_make_no_sense_are_refused(collection, documents):
    collection.add(documents)
    for query in ("", "  \n", None, 3):
        with pytest.raises(UsageError, match="not blank"):
            collection.search(query)
    with pytest.raises(UsageError, match="not blank"):
        collection.search_many("one text")
    with pytest.raises(UsageError, match="at least 1"):
        collection.search("x", k=0)
    with pytest.raises(UnknownName, match="did you mean 'rrf'"):
        collection.search("x", fusion="rff")
    with pytest.raises(UsageError, match="no weight for 'bm25'"):
        collection.search("x", fusion="weighted", retrievers=["dense", "bm25"])


@pytest.mark.parametrize("modes", [["dense"], ["sparse"], ["multi_vector"], ["sparse", "multi_vector"]])
def test_encoders_with_fewer_modes(folder, documents, modes):
    class Fewer(HashingEncoder):
        def encode(self, texts, *, kind, modes=None, progress=False):
            return super().encode(texts, kind=kind, modes=given if modes is None else modes)

    given, encoder = modes, Fewer()
    encoder.dimensions = {mode: width for mode, width in encoder.dimensions.items() if mode in modes}
    with Collection.create(folder, encoder=encoder, analyzer="bigram") as collection:
        collection.add(documents)
        assert collection.retrievers == (*modes, "bm25")
        for retrievers in (None, modes, ["bm25"]):
            assert ids(collection.search("Cats sleep", retrievers=retrievers))[0] == "cats"
        missing = next(mode for mode in ("dense", "sparse") if mode not in modes)
        with pytest.raises(UsageError, match=f"has no {missing} embeddings"):
            collection.search("x", retrievers=[missing])


def test_the_shard_and_the_exact_index_find_the_same(folder, encoder, documents):
    with Collection.create(folder, encoder=encoder, analyzer="bigram") as collection:
        collection.add([*documents, *(Document(f"d{n}", f"word{n % 7} word{n % 5} 말{n % 3}") for n in range(60))])
        collection.prepare()
        with Collection.open(folder, encoder=encoder, read_only=True) as reader:
            for query in ("word3 word4", "말2 Cats", "나무는"):
                for retrievers in (None, ["dense"], ["sparse"]):
                    first = collection.search(query, retrievers=retrievers, depth=7)
                    second = reader.search(query, retrievers=retrievers, depth=7)
                    assert ids(first) == ids(second)
                    assert [hit.score for hit in first] == pytest.approx([hit.score for hit in second], abs=1e-6)
            with pytest.raises(CollectionError, match="another process holds it"):
                reader.optimize()
        collection.optimize()

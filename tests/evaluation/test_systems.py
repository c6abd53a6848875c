import pytest

from trine.errors import UnknownName, UsageError
from trine.evaluation.systems import System, default_systems, parse_system, select_systems
from trine.types import MODES


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dense", System(("dense",), name="dense")),
        ("bm25", System(("bm25",), name="bm25")),
        ("bm25+dense:rrf", System(("dense", "bm25"), "rrf", name="dense+bm25 (rrf)")),
        ("dense+sparse (m3)", System(("dense", "sparse"), "weighted", "m3", "dense+sparse (m3)")),
        ("all:m3-long", System(MODES, "weighted", "m3-long", "all (m3-long)")),
        ("all:weighted", System(MODES, "weighted", "m3", "all (m3)")),
        ("multi_vector+dense+sparse:minmax", System(MODES, "minmax", name="all (minmax)")),
        (" all+bm25(zscore) ", System((*MODES, "bm25"), "zscore", name="all+bm25 (zscore)")),
    ],
)
def test_names(name, expected):
    assert parse_system(name, modes=MODES) == expected


def test_every_name_reads_back():
    for modes in (MODES, ("dense", "sparse"), ("dense",), ()):
        for system in default_systems(modes):
            assert parse_system(system.name, modes=modes) == system


def test_defaults_follow_what_the_encoder_gives():
    assert [system.name for system in default_systems(MODES)] == [
        "dense",
        "sparse",
        "multi_vector",
        "bm25",
        "all (m3)",
        "all (rrf)",
        "all (zscore)",
        "all+bm25 (rrf)",
        "all+bm25 (zscore)",
    ]
    assert [system.name for system in default_systems(["dense"])] == [
        "dense",
        "bm25",
        "dense+bm25 (rrf)",
        "dense+bm25 (zscore)",
    ]
    assert [system.name for system in default_systems([])] == ["bm25"]


def test_all_means_what_the_encoder_has():
    assert parse_system("all+bm25:rrf", modes=["multi_vector", "dense"]).retrievers == ("dense", "multi_vector", "bm25")
    assert parse_system("all+bm25:rrf", modes=["sparse"]).name == "sparse+bm25 (rrf)"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("dens", UnknownName, "no retriever called 'dens'; did you mean 'dense'"),
        ("multi-vector", UnknownName, "did you mean 'multi_vector'"),
        ("dense+bm25:rff", UnknownName, "no fusion called 'rff'; did you mean 'rrf'"),
        ("dense+bm25", UsageError, r"say how to fuse, as in dense\+bm25:rrf"),
        ("dense+bm25:", UsageError, "say how to fuse"),
        ("dense:rrf", UsageError, "one retriever has nothing to fuse; write it as dense"),
        ("dense+dense:rrf", UsageError, "names a retriever twice"),
        ("all+dense:rrf", UsageError, "names a retriever twice"),
        ("dense+bm25:m3", UsageError, "with bm25 use rrf, minmax or zscore"),
        ("dense bm25", UsageError, "cannot be read"),
        ("", UsageError, "cannot be read"),
        ("multi_vector", UsageError, "needs multi_vector; the encoder gives dense, sparse"),
    ],
)
def test_what_cannot_be_meant_is_refused(name, error, message):
    with pytest.raises(error, match=message):
        parse_system(name, modes=["dense", "sparse"])


def test_a_mode_without_an_encoder_is_refused():
    with pytest.raises(UsageError, match="needs dense; the encoder gives no vectors at all"):
        parse_system("dense", modes=[])
    with pytest.raises(UsageError, match="needs an encoder"):
        parse_system("all:rrf", modes=[])


def test_selection_keeps_order_and_drops_repeats():
    chosen = select_systems(["bm25", "dense+bm25:rrf", "dense+bm25 (rrf)", "dense"], modes=MODES)
    assert [system.name for system in chosen] == ["bm25", "dense+bm25 (rrf)", "dense"]
    assert select_systems(None, modes=MODES) == default_systems(MODES)
    with pytest.raises(UsageError, match="no system"):
        select_systems([], modes=MODES)
    with pytest.raises(UsageError, match=r"list of names: \['dense'\]"):
        select_systems("dense", modes=MODES)


def test_slugs_serve_as_file_names_and_tags():
    slugs = [system.slug for system in default_systems(MODES)]
    assert slugs[-1] == "all+bm25.zscore"
    assert all(slug.split() == [slug] for slug in slugs)
    assert len(set(slugs)) == len(slugs)

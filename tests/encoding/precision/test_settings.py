import pytest

from trine.encoding.precision.settings import Precision
from trine.errors import UnknownName, UsageError


def test_the_default_keeps_everything():
    assert Precision() == Precision.full()
    assert Precision().modes == ("dense", "sparse", "multi_vector")
    assert Precision.full(["sparse"]).modes == ("sparse",)


def test_a_name_says_every_option():
    given = Precision(
        dense="binary", rescore="int8", dimensions=128, sparse="uint8", sparse_top=64, sparse_threshold=0.1,
        multi_vector="int4", pool=2,
    )  # fmt: skip
    assert given.name == "dense binary + int8 128d, sparse uint8 top 64 from 0.1, multi int4 pool 2"
    assert Precision(dense=None, sparse=None).part("dense") == "-"


def test_one_representation_alone_keeps_its_own_options():
    given = Precision(dense="int8", dimensions=64, sparse="uint8", sparse_top=9, multi_vector="int4", pool=3)
    assert given.only("dense") == Precision(dense="int8", dimensions=64, sparse=None, multi_vector=None)
    assert given.only("sparse") == Precision(dense=None, sparse="uint8", sparse_top=9, multi_vector=None)
    assert given.only("multi_vector") == Precision(dense=None, sparse=None, multi_vector="int4", pool=3)
    with pytest.raises(UsageError, match="leaves out dense"):
        given.only("sparse").only("dense")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"dense": None, "sparse": None, "multi_vector": None}, "keep at least one"),
        ({"dimensions": 0}, "dimensions is 0"),
        ({"pool": 0}, "pool is 0"),
        ({"sparse_top": -1}, "sparse_top is -1"),
        ({"sparse_threshold": float("nan")}, "sparse_threshold is nan"),
        ({"sparse_threshold": -0.1}, "sparse_threshold is -0.1"),
        ({"dense": None, "dimensions": 64}, "dimensions has no effect without dense"),
        ({"sparse": None, "sparse_top": 64}, "sparse_top has no effect without sparse"),
        ({"multi_vector": None, "pool": 2}, "pool has no effect without multi_vector"),
        ({"dense": "int8", "rescore": "int8"}, "rescore needs dense='binary', not 'int8'"),
    ],
)
def test_what_cannot_be_or_does_nothing_is_refused(options, said):
    with pytest.raises(UsageError, match=said):
        Precision(**options)


@pytest.mark.parametrize(
    ("options", "near"),
    [
        ({"dense": "int-8"}, "int8"),
        ({"sparse": "uint88"}, "uint8"),
        ({"multi_vector": "residual"}, "residual"),
        ({"dense": "binary", "rescore": "flaot32"}, "float32"),
        ({"dense": "binary", "rescore": "binary"}, "Known"),
    ],
)
def test_a_typo_suggests_the_nearest(options, near):
    with pytest.raises(UnknownName, match=near):
        Precision(**options)

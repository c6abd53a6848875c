import pytest
from hypothesis import given
from hypothesis import strategies as st

from trine.data.memory import MemoryModel, ModelShape
from trine.errors import UsageError

# Chen et al., BGE-M3 (arXiv 2402.03216), table 9, for each of its 96 and 24 GPUs; lengths are the groups' upper ends.
LENGTHS = [500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8192]
UNSUPERVISED = [700, 570, 388, 288, 224, 180, 157, 128, 104]
FINE_TUNING = [48, 32, 20, 18, 14, 14, 12, 10, 8]
# The released training code's sub-batches by upper length of the group.
SUB_BATCHES = {512: 32, 1000: 16, 2000: 9, 3000: 5, 4000: 3, 5000: 3, 6000: 2, 8192: 1}


def test_three_rows_of_the_unsupervised_table_give_the_others():
    chosen = [0, 4, 8]
    model = MemoryModel.fit([LENGTHS[n] for n in chosen], [UNSUPERVISED[n] for n in chosen])
    found = [model.batch_size(length) for length in LENGTHS]
    assert found == pytest.approx(UNSUPERVISED, rel=0.1)


def test_all_rows_of_the_fine_tuning_table_are_met():
    model = MemoryModel.fit(LENGTHS, FINE_TUNING, group_size=8)
    for length, size in zip(LENGTHS, FINE_TUNING, strict=True):
        assert abs(model.batch_size(length, group_size=8) - size) <= 1 + 0.15 * size


def test_the_sub_batches_are_met_and_attention_costs_more_than_tokens():
    model = MemoryModel.fit(list(SUB_BATCHES), list(SUB_BATCHES.values()))
    for length, size in SUB_BATCHES.items():
        assert abs(model.batch_size(length) - size) <= 1 + 0.15 * size
    assert model.quadratic * 8192 > model.linear


costs = st.floats(0.01, 10)


@given(fixed=costs, linear=costs, quadratic=costs, group=st.integers(1, 8))
def test_a_fit_finds_the_model_behind_exact_sizes(fixed, linear, quadratic, group):
    true = MemoryModel(1e6, fixed, linear / 100, quadratic / 1e4)
    lengths = [10, 100, 1000, 3000]
    sizes = [1e6 / true.cost(length, group_size=group) for length in lengths]
    fitted = MemoryModel.fit(lengths, sizes, group_size=group, budget=1e6)
    for length in (10, 50, 500, 3000):
        assert fitted.cost(length, group_size=group) == pytest.approx(true.cost(length, group_size=group), rel=1e-6)


@given(
    lengths=st.lists(st.integers(1, 9000), min_size=2, max_size=6, unique=True),
    sizes=st.lists(st.integers(1, 900), min_size=6, max_size=6),
)
def test_longer_texts_never_get_larger_batches(lengths, sizes):
    model = MemoryModel.fit(lengths, sizes[: len(lengths)])
    found = [model.batch_size(length) for length in range(1, 9000, 500)]
    assert found == sorted(found, reverse=True)
    assert found[-1] >= 1


def test_costs_by_hand():
    model = MemoryModel(100, 4, 2, 0.5)
    assert model.cost(2) == 4 + 2 * 2 + 0.5 * 4
    assert model.cost(2, group_size=3) == 4 + 3 * 6
    assert model.batch_size(2) == 10
    assert model.batch_size(100) == 1


def test_a_shape_costs_what_the_paper_counts():
    hidden, layers, heads = 64, 3, 4
    shape = ModelShape(layers=layers, hidden=hidden, heads=heads, intermediate=4 * hidden, keeps_attention=True)
    model = MemoryModel.of_shape(shape, budget_bytes=1e9, query_length=16)
    assert model.linear == 34 * hidden * layers
    assert model.quadratic == 5 * heads * layers
    assert model.fixed == 16 * 34 * hidden * layers + 5 * heads * layers * 256


def test_checkpointing_and_fused_attention_save_memory():
    plain = ModelShape(layers=12, hidden=64, heads=4, intermediate=256)
    saving = ModelShape(layers=12, hidden=64, heads=4, intermediate=256, gradient_checkpointing=True)
    assert MemoryModel.of_shape(plain, budget_bytes=1e9).quadratic == 0
    assert MemoryModel.of_shape(saving, budget_bytes=1e9).linear == 34 * 64 + 2 * 64 * 12
    assert MemoryModel.of_shape(saving, budget_bytes=1e9).batch_size(512) > MemoryModel.of_shape(
        plain, budget_bytes=1e9
    ).batch_size(512)


@pytest.mark.parametrize(
    "call",
    [
        lambda: MemoryModel(1, -1, 1),
        lambda: MemoryModel(1, 0, 0),
        lambda: MemoryModel(0, 1, 1),
        lambda: MemoryModel.fit([1], [1]),
        lambda: MemoryModel.fit([1, 2], [1]),
        lambda: MemoryModel.fit([1, 2], [1, 0]),
    ],
)
def test_costs_that_mean_nothing_are_refused(call):
    with pytest.raises(UsageError):
        call()

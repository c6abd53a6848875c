import numpy as np
import torch

from trine.models.config import MultiVectorConfig, Normalize, Projection
from trine.models.heads.multi_vector import MultiVectorHead

IDS = np.array([0, 7, 8, 2, 0, 9, 7, 2], np.int32)
STARTS = np.array([0, 4])


def head(**options):
    return MultiVectorHead(MultiVectorConfig(**options), hidden_size=2)


def kept(module, kind="passage"):
    return list(np.flatnonzero(module.kept(IDS, STARTS, kind=kind)))


def test_bge_m3_drops_the_first_token_and_keeps_the_last():
    assert kept(head(drop_first=True)) == [1, 2, 3, 5, 6, 7]


def test_nothing_is_dropped_unasked():
    assert kept(head()) == list(range(8))


def test_ids_are_dropped_by_kind():
    module = head(dropped_query_ids=(2,), dropped_passage_ids=(7, 8))
    assert kept(module, "query") == [0, 1, 2, 4, 5, 6]
    assert kept(module, "passage") == [0, 3, 4, 5, 7]


def test_a_text_may_lose_all_its_vectors():
    assert kept(head(dropped_passage_ids=(0, 7, 8, 2))) == [5]


def test_projection_and_normalisation():
    module = head(layers=(Projection(2, 2), Normalize()))
    with torch.no_grad():
        module.layers[0].linear.weight.copy_(torch.eye(2))
        module.layers[0].linear.bias.copy_(torch.tensor([0.0, 1.0]))
    assert module.width == 2
    states = torch.tensor([[[3.0, 3.0], [0.0, -1.0]]])
    # (3, 4) / 5; a token that the projection maps to zero stays zero.
    torch.testing.assert_close(module(states), torch.tensor([[[0.6, 0.8], [0.0, 0.0]]]))


def test_without_layers_the_states_are_the_vectors():
    module = head()
    assert module.width == 2
    states = torch.randn(1, 3, 2)
    torch.testing.assert_close(module(states), states)

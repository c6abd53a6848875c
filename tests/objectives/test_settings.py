"""Settings that make no sense are refused when they are written, not when training has begun."""

import pytest

from trine.errors import UnknownName, UsageError
from trine.objectives.settings import EmbeddingSettings

ALL = ("dense", "sparse", "multi_vector")

GOOD = [
    {},
    {"temperature": 0.01, "blocks": ("query_passage", "query_query", "passage_query", "passage_passage")},
    {"blocks": ("query_passage", "passage_query"), "partition": "separate"},
    {"distillation": "kl", "contrastive_weight": 0.2, "teacher_temperature": 2.0},
    {"modes": ALL, "self_distillation": True, "mode_weights": dict.fromkeys(ALL, 1.0)},
    {"modes": ("sparse",), "temperature": 1.0, "query_flops": 0.1, "passage_flops": 0.08},
    {"embedding_distillation": "cosine", "contrastive_weight": 0.0, "projection": (6, 8)},
    {"matryoshka_widths": (768, 128), "matryoshka_weights": (1.0, 0.5), "spread_out": 1.0},
    {"hardness": 5.0, "hardness_negatives": "all", "focal": 0.5, "false_negative_margin": 0.1},
    {"modes": ("dense", "sparse"), "ensemble": False},
    {"distillation": "ranked", "contrastive_weight": 0.0, "false_negative_ratio": 0.95},
    {"learn_temperature": True, "temperature": 0.01},
]


@pytest.mark.parametrize("options", GOOD, ids=str)
def test_published_combinations_are_allowed(options):
    assert EmbeddingSettings(**options).modes


USELESS = [
    ({"hardness_negatives": "all"}, "hardness_negatives='all' has no effect without hardness"),
    ({"self_distillation": True}, "self_distillation=True has no effect without two modes"),
    ({"modes": ALL, "self_distillation": True, "ensemble": False}, "self_distillation=True has no effect"),
    ({"ensemble": True}, "ensemble=True has no effect without two modes"),
    ({"mode_weights": {"dense": 2.0}}, "has no effect without two modes"),
    ({"modes": ("dense", "sparse"), "ensemble": False, "ensemble_weights": {"dense": 1, "sparse": 1}}, "no effect"),
    ({"query_flops": 0.1}, "query_flops=0.1 has no effect without the sparse mode"),
    ({"passage_flops": 0.1}, "passage_flops=0.1 has no effect without the sparse mode"),
    ({"modes": ("sparse",), "spread_out": 0.1}, "spread_out=0.1 has no effect without the dense mode"),
    ({"modes": ("sparse",), "matryoshka_widths": (4,)}, "has no effect without the dense mode"),
    ({"modes": ("sparse",), "embedding_distillation": "cosine"}, "has no effect without the dense mode"),
    ({"matryoshka_weights": (1.0,)}, "has no effect without matryoshka_widths"),
    ({"distillation_weight": 2.0}, "has no effect without distillation"),
    ({"teacher_temperature": 2.0}, "has no effect without distillation by softmax"),
    ({"distillation": "margin_mse", "teacher_temperature": 2.0}, "has no effect without distillation by softmax"),
    ({"embedding_distillation_weight": 2.0}, "has no effect without embedding_distillation"),
    ({"embedding_distillation": "geometry", "projection": (4, 8)}, "no effect without embedding_distillation='cosine'"),
    ({"distillation": "kl", "contrastive_weight": 0.0, "focal": 0.5}, "focal=0.5 has no effect"),
    ({"distillation": "kl", "contrastive_weight": 0.0, "hardness": 5.0}, "hardness=5.0 has no effect"),
    ({"distillation": "kl", "contrastive_weight": 0.0, "false_negative_margin": 0.1}, "has no effect"),
    (
        {"distillation": "kl", "contrastive_weight": 0.0, "blocks": ("query_passage", "query_query")},
        "has no effect without contrastive_weight",
    ),
    ({"embedding_distillation": "cosine", "contrastive_weight": 0.0, "learn_temperature": True}, "has no effect"),
]


@pytest.mark.parametrize(("options", "message"), USELESS, ids=lambda value: str(value)[:60])
def test_a_setting_without_effect_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        EmbeddingSettings(**options)


WRONG = [
    ({"temperature": 0.0}, "temperature must be positive, not 0.0"),
    ({"temperature": float("nan")}, "temperature must be positive, not nan"),
    ({"focal": -1.0}, "focal must be 0 or more, not -1.0"),
    ({"spread_out": float("inf")}, "spread_out must be 0 or more, not inf"),
    ({"learn_temperature": True, "temperature": 0.001}, "starts at 0.001"),
    ({"modes": ()}, "modes must be one or more"),
    ({"modes": ("dense", "dense")}, "all different"),
    ({"blocks": ("query_query",)}, "must hold 'query_passage'"),
    ({"partition": "separate"}, "is for blocks"),
    ({"false_negative_margin": 0.1, "false_negative_ratio": 0.9}, "not both"),
    ({"contrastive_weight": 0.0}, "nothing to learn from"),
    (
        {"modes": ("dense", "sparse"), "embedding_distillation": "cosine", "contrastive_weight": 0.0},
        "only dense embeddings are trained",
    ),
    ({"modes": ("dense", "sparse"), "mode_weights": {"dense": 1.0}}, "mode_weights are for"),
    ({"modes": ("dense", "sparse"), "mode_weights": {"dense": 1.0, "sparse": -1.0}}, "mode_weights must be 0 or more"),
    ({"matryoshka_widths": (4, 4)}, "all different"),
    ({"matryoshka_widths": (4, 2), "matryoshka_weights": (1.0,)}, "1 matryoshka weights for 2 widths"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_value_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        EmbeddingSettings(**options)


TYPED = [
    ({"modes": ("dens",)}, "dense"),
    ({"blocks": ("query_pasage",)}, "query_passage"),
    ({"distillation": "margin-mse"}, "margin_mse"),
    ({"embedding_distillation": "cosin"}, "cosine"),
    ({"partition": "jiont"}, "joint"),
    ({"hardness_negatives": "in-batch"}, "in_batch"),
]


@pytest.mark.parametrize(("options", "meant"), TYPED, ids=str)
def test_a_typing_error_names_the_nearest(options, meant):
    with pytest.raises(UnknownName, match=f"did you mean '{meant}'"):
        EmbeddingSettings(**options)


def test_what_is_derived():
    assert EmbeddingSettings(modes=ALL).summed
    assert not EmbeddingSettings(modes=ALL, ensemble=False).summed
    assert not EmbeddingSettings().summed
    assert EmbeddingSettings(modes=("sparse", "multi_vector")).judge == "multi_vector"
    assert EmbeddingSettings(modes=("sparse",)).judge == "sparse"
    assert not EmbeddingSettings(embedding_distillation="cosine", contrastive_weight=0.0).scored

"""Recipes hold the papers' numbers, and refuse settings that cannot be meant."""

import msgspec
import pytest

from trine.errors import UnknownName, UsageError
from trine.recipes import RECIPES
from trine.recipes.config import PairRecipe, PretrainingRecipe, RerankerRecipe, changed, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_names_itself_and_its_source(name):
    found = recipe(name)
    assert found.name == name
    assert "arXiv" in found.source or "ACL" in found.source


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("_small")])
def test_every_small_recipe_is_one_of_a_full_one_and_smaller(name):
    small, full = recipe(name), recipe(name.removesuffix("_small"))
    assert type(small) is type(full)
    assert small.batch_size <= full.batch_size
    assert "scaled down" in small.source


def test_the_papers_numbers():
    e5 = recipe("e5_pretrain")
    assert (e5.batch_size, e5.steps, e5.temperature, e5.query_prompt) == (32_768, 20_000, 0.01, "query: ")
    assert recipe("e5_finetune").contrastive_weight == 0.2
    m3 = recipe("bge_m3")
    assert (m3.mode_weights, m3.ensemble_weights, m3.temperature) == ((1.0, 0.1, 1.0), (1.0, 0.3, 1.0), 0.02)
    assert (m3.group_size, m3.self_distillation) == (8, True)
    mae = recipe("retromae")
    assert (mae.encoder_mask, mae.decoder_mask, mae.enhanced) == (0.3, 0.5, True)


def test_text_is_read_as_the_type_of_the_field():
    found = recipe(
        "bge_m3_small",
        {"learning_rate": "3e-4", "modes": "dense,sparse", "cached": "false", "matryoshka": "64,32", "patience": "3"},
    )
    assert isinstance(found, PairRecipe)
    assert found.learning_rate == 3e-4
    assert found.modes == ("dense", "sparse")
    assert found.cached is False
    assert found.matryoshka == (64, 32)
    assert found.patience == 3


def test_one_number_is_a_list_of_one_and_none_is_none():
    found = recipe("bge_m3_small", {"matryoshka": "64", "vector_width": "none", "query_prompt": "질문: "})
    assert found.matryoshka == (64,)
    assert found.vector_width is None
    assert found.query_prompt == "질문: "


def test_steps_and_epochs_exclude_each_other():
    assert recipe("bge_m3_small").epochs == 1
    by_steps = recipe("bge_m3_small", {"steps": 5})
    assert (by_steps.steps, by_steps.epochs) == (5, None)
    with pytest.raises(UsageError, match="steps or epochs"):
        recipe("bge_m3_small", {"steps": 5, "epochs": 2})


def test_a_mistyped_key_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'learning_rate'"):
        recipe("retromae_small", {"lerning_rate": 1})
    with pytest.raises(UnknownName, match="did you mean 'retromae_small'"):
        recipe("retromea_small")
    with pytest.raises(UnknownName):
        recipe("retromae_small", {"name": "mine"})


@pytest.mark.parametrize(
    ("key", "value"), [("batch_size", "many"), ("batch_size", "0"), ("learning_rate", "-1"), ("modes", "dence")]
)
def test_values_that_cannot_be_used(key, value):
    with pytest.raises(UsageError, match=key):
        recipe("bge_m3_small", {key: value})


def test_a_recipe_is_frozen_and_survives_json():
    for name in ("retromae", "bge_m3", "reranker"):
        found = recipe(name)
        with pytest.raises(AttributeError):
            found.batch_size = 1
        again = msgspec.json.decode(msgspec.json.encode(found), type=PairRecipe | PretrainingRecipe | RerankerRecipe)
        assert again == found
    assert changed(recipe("bge_m3"), {"seed": 7}).seed == 7

"""A prefix that many texts share, computed once: the states are those of the whole texts."""

import numpy as np
import pytest
import torch

from models import tiny
from trine.encoding.engine import pad
from trine.models.prefixes import continued, take_prefix

PROMPT = "Instruct: 문서를 찾으시오 retrieve passages\nQuery: "
TEXTS = ["검색", "한국어 임베딩 벡터", "a much longer text about an index and its container", "x"]


def batch_of(encoder, prompt=PROMPT):
    tokens = encoder.text(TEXTS, kind="passage", prompt=prompt)
    return pad(tokens, np.arange(len(TEXTS)), kind="passage", device=encoder.device)


@pytest.mark.parametrize("name", tiny.DECODERS)
@torch.inference_mode()
def test_states_are_those_of_the_whole_texts(name):
    encoder = tiny.encoder(name)
    batch = batch_of(encoder)
    whole = encoder.backbone(batch.ids_BL, batch.attended_BL).hidden_BLH
    prefix = take_prefix(encoder.backbone, batch.ids_BL[0, :9])
    assert len(prefix) == 9
    # Twice: the first texts' keys and values must not stay behind in the prefix.
    for _ in range(2):
        found = continued(encoder.backbone, prefix, batch.ids_BL, batch.attended_BL).hidden_BLH
        torch.testing.assert_close(found[batch.mask_BL], whole[batch.mask_BL], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder", [tiny.encoder("bert"), tiny.encoder("llama", attention="bidirectional")])
def test_where_tokens_see_those_behind_them_there_is_no_prefix(encoder):
    assert take_prefix(encoder.backbone, torch.arange(5, 12)) is None

"""A fingerprint changes with whatever changes a result; the encoder's own tests try its parts."""

import torch

from models import tiny
from trine.models.fingerprints import fingerprint


def test_weights_settings_and_vocabulary_count():
    encoder = tiny.encoder("bert")
    module, tokenizer = torch.nn.Linear(3, 2), encoder.tokenizer
    first = fingerprint(module, tokenizer, settings=b"a")
    assert first == fingerprint(module, tokenizer, settings=b"a")
    assert first != fingerprint(module, tokenizer, settings=b"b")
    with torch.no_grad():
        module.bias[1] += 1
    assert first != fingerprint(module, tokenizer, settings=b"a")
    changed = fingerprint(module, tokenizer, settings=b"a")
    tokenizer.add_tokens(["새말"])
    assert changed != fingerprint(module, tokenizer, settings=b"a")


def test_the_number_format_does_not_count():
    module = torch.nn.Linear(3, 2).to(torch.bfloat16)
    tokenizer = tiny.encoder("bert").tokenizer
    assert fingerprint(module, tokenizer, settings=b"") == fingerprint(module.float(), tokenizer, settings=b"")

"""What all tests share: no network, and tiny random models, each built once a session and never changed."""

import functools
import os

import hypothesis
import pytest

# The same examples in every run, however slow the machine.
hypothesis.settings.register_profile("trine", derandomize=True, deadline=None)
hypothesis.settings.load_profile("trine")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny models: a second thread only waits (two test files took 344 s instead of 61 s on two busy cores).
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """Folder of the bare tiny transformer of a name, as transformers writes it. Copy it before you change it."""
    from models import tiny

    root = tmp_path_factory.mktemp("plain")

    @functools.cache
    def folder(name, *, masked_lm=False):
        return tiny.build(name, masked_lm=masked_lm).save(root / f"{name}-{masked_lm}")

    return folder


@pytest.fixture(scope="session")
def trio():
    """Tiny encoder with all three heads on the backbone of a name."""
    from models import tiny

    return functools.cache(tiny.encoder)

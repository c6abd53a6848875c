import subprocess
import sys

import numpy as np

from trine.index import ANALYZERS, INDEXES, Ranking
from trine.tables import resolve


def test_ranking_rows_come_back_as_they_went_in():
    rows = [
        (np.array([4, 2]), np.array([1.0, 0.5], np.float32)),
        (np.array([], np.int64), np.array([], np.float32)),
        (np.array([9]), np.array([-1.0], np.float32)),
    ]
    ranking = Ranking.from_rows(rows)
    assert ranking.offsets.tolist() == [0, 2, 2, 3]
    for number, (ids, scores) in enumerate(rows):
        assert ranking.row(number)[0].tolist() == ids.tolist()
        assert ranking.row(number)[1].tolist() == scores.tolist()
    assert ranking.ids.dtype == np.int64
    assert ranking.scores.dtype == np.float32


def test_ranking_of_no_queries():
    assert Ranking.from_rows([]).offsets.tolist() == [0]


def test_every_row_of_the_tables_resolves():
    for name in INDEXES:
        assert callable(resolve(INDEXES, name, kind="index").open)
    for name in ANALYZERS:
        assert resolve(ANALYZERS, name, kind="analyzer").name == name


def test_no_backend_and_no_dictionary_is_loaded_before_it_is_asked_for():
    code = (
        "import sys; import trine.index, trine.index.exact, trine.index.bm25, trine.index.analysis, trine.index.kiwi;"
        "loaded = {'qdrant_edge', 'kiwipiepy', 'torch', 'transformers'} & set(sys.modules); sys.exit(str(loaded or ''))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""

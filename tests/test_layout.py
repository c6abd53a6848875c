"""Tests stand where their sources stand, tables lead somewhere, and functions stay short."""

import ast
from pathlib import Path

import pytest

from trine.data.example_formats import FORMATS
from trine.data.ingest import INGESTORS
from trine.index import ANALYZERS, INDEXES
from trine.models.checkpoints import CHECKPOINTS, EXPORTS
from trine.models.encoder import ENGINES
from trine.recipes import RECIPES
from trine.tables import resolve

TESTS = Path(__file__).parent
SOURCES = TESTS.parent / "src" / "trine"
FILES = sorted(path.relative_to(SOURCES) for path in SOURCES.rglob("*.py") if path.name != "__init__.py")

TOGETHER = {
    "data/ingest/csv.py": "data/ingest/test_row_files.py",
    "data/ingest/jsonl.py": "data/ingest/test_row_files.py",
    "data/ingest/rows.py": "data/ingest/test_row_files.py",
    "data/ingest/outline.py": "data/ingest/test_markdown.py",
    "data/ingest/text.py": "data/ingest/test_ingestors.py",
    "evaluation/bench.py": "evaluation/test_evaluate.py",
    "evaluation/files.py": "evaluation/test_beir.py",
    "cli/opening.py": "cli/test_search.py",
    "cli/show_explanation.py": "cli/test_explain.py",
    "cli/show_facts.py": "cli/test_info.py",
    "__main__.py": "cli/test_process.py",
    "recipes/bge_m3.py": "recipes/test_config.py",
    "recipes/distill.py": "recipes/test_config.py",
    "recipes/e5.py": "recipes/test_config.py",
    "recipes/reranker.py": "recipes/test_config.py",
    "recipes/retromae.py": "recipes/test_config.py",
    "recipes/simcse.py": "recipes/test_config.py",
    "recipes/training.py": "recipes/test_run.py",
    "recipes/pretraining.py": "recipes/test_run.py",
}
"""Sources without a test file of their own, and the one that tests them with what uses them."""

LONGEST_BODY = 60


@pytest.mark.parametrize("path", FILES, ids=str)
def test_every_source_has_its_tests(path):
    test = TESTS / TOGETHER.get(path.as_posix(), path.parent / f"test_{path.name}")
    assert test.is_file(), f"{path} has no {test.relative_to(TESTS.parent)}"
    assert "def test_" in test.read_text(encoding="utf-8")


def test_every_exception_is_still_one():
    for source, test in TOGETHER.items():
        assert (SOURCES / source).is_file()
        own = TESTS / Path(source).parent / f"test_{Path(source).name}"
        assert not own.exists() or own == TESTS / test


@pytest.mark.parametrize("path", FILES, ids=str)
def test_function_bodies_are_short(path):
    for node in ast.walk(ast.parse((SOURCES / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            length = node.end_lineno - body[0].lineno + 1
            assert length <= LONGEST_BODY, f"{path}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize(
    ("table", "name"),
    [(table, name) for table in (ANALYZERS, ENGINES, EXPORTS, FORMATS, INDEXES, INGESTORS, RECIPES) for name in table],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_row_of_a_table_leads_somewhere(table, name):
    assert callable(resolve(table, name, kind="row"))


@pytest.mark.parametrize("layout", CHECKPOINTS)
def test_every_layout_can_recognise_and_read(layout):
    import importlib

    module = importlib.import_module(CHECKPOINTS[layout])
    assert callable(module.matches)
    assert callable(module.read)

import pytest
from typer.testing import CliRunner

from cli import doubles
from trine.cli import encoders
from trine.cli.main import app


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty current folder and an environment without settings."""
    for name in ("TRINE_COLLECTION", "TRINE_DEVICE", "TRINE_DTYPE", "TRINE_DEBUG", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loaded(monkeypatch):
    """The names of the models that commands asked for; none is read from disk."""
    names = []

    def read_encoder(name, **how):
        names.append(name)
        return doubles.read_encoder(name, **how)

    monkeypatch.setattr(encoders, "read_encoder", read_encoder)
    return names


@pytest.fixture
def run(loaded):
    """Runs a command line in this process."""

    def call(*arguments, stdin=None):
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)

    return call


@pytest.fixture
def docs(home):
    """Three documents in two languages."""
    folder = home / "docs"
    folder.mkdir()
    (folder / "pod.md").write_text("# Pod\n\nA pod holds one or more containers.\n\n## Life\n\nPods are short lived.\n")
    (folder / "파드.md").write_text("---\nlang: ko\n---\n# 파드\n\n파드는 하나 이상의 컨테이너를 담는다 🙂.\n", "utf-8")
    (folder / "cats.txt").write_text("Cats sleep all day. A cat eats fish.\n")
    return folder


@pytest.fixture
def collection(run, docs):
    """Those documents in the default collection of the current folder."""
    result = run("index", docs, "--analyzer", "bigram")
    assert result.exit_code == 0, result.output
    return docs.parent / ".trine"

import pytest

from curation.synthesis.server import Scripted
from trine.curation.llm import Endpoint


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    """No key and no settings of the machine's own."""
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def serve():
    """Starts scripted servers, and ends them."""
    started = []

    def start(script=lambda number, body: None, **options):
        started.append(Scripted(script, **options))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def waits():
    """The seconds that would have been slept; `waits.append` is the sleep."""
    return []


@pytest.fixture
def endpoint():
    """An endpoint of a server."""
    return lambda server, **options: Endpoint(server.url, "scripted", **{"timeout": 10, **options})

"""Run by test_run.py, to be killed: writes examples from the endpoint that it is given."""

import sys
from pathlib import Path

from trine.curation.llm import Endpoint
from trine.curation.synthesis.plan import mix_of
from trine.curation.synthesis.run import Settings, synthesize

folder, url, mode = sys.argv[1:]
settings = Settings(mix_of(["short-long", "sts"], ["ko"], grounded=False), 40, mode=mode, concurrency=4)
synthesize(Path(folder), Endpoint(url, "scripted"), settings)

"""`trine` with an encoder that needs no weights; a text that holds "sleep" makes it wait to be interrupted."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cli.doubles import NamedEncoder
from trine.cli import encoders
from trine.cli.main import main


class Sleepy(NamedEncoder):
    """Waits where it is told to."""

    def encode(self, texts, **how):
        if any("sleep" in text for text in texts):
            sys.stderr.write("sleeping\n")
            sys.stderr.flush()
            time.sleep(60)
        return super().encode(texts, **how)


encoders.read_encoder = lambda name, **how: Sleepy()
main()

"""A model for worker processes that waits to be interrupted."""

import sys
import time

from cli.doubles import NamedEncoder


class Sleeper(NamedEncoder):
    """Waits where it is told to."""

    def encode(self, texts, **how):
        if any("sleep" in text for text in texts):
            sys.stderr.write("sleeping\n")
            sys.stderr.flush()
            time.sleep(60)
        return super().encode(texts, **how)


def load(name, **how):
    return Sleeper()

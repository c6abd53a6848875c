"""What several tests of this room need."""

from trine.testing import HashingEncoder


def ids(hits):
    return [hit.passage.document_id for hit in hits]


class Counting(HashingEncoder):
    """Counts what it embeds, and fails where told."""

    def __init__(self):
        super().__init__()
        self.texts = []
        self.batches = []

    def encode(self, texts, *, kind, modes=None, progress=False):
        if kind == "passage":
            self.texts += texts
            self.batches.append(len(texts))
        if any("fail" in text for text in texts):
            raise RuntimeError("the model fell over")
        if any("interrupt" in text for text in texts):
            raise KeyboardInterrupt
        return super().encode(texts, kind=kind, modes=modes)

"""Any number of texts from files to shards on disk, in flat memory, to be stopped and taken up again at any point."""

from trine.encoding.bulk.job import Report, encode_files
from trine.encoding.bulk.opening import EncodedTexts, Shards, open_shards
from trine.encoding.bulk.plan import Settings

__all__ = ["EncodedTexts", "Report", "Settings", "Shards", "encode_files", "open_shards"]

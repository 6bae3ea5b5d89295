"""Reading: every kind of table behind one face, in logical row order, as often as asked.

:func:`open_source` takes a path (Parquet, CSV, JSON Lines, Arrow/Feather, ORC, or a folder of one of
them, image files and Hive partitions included) or the URL of one, a ``pyarrow.Table``, a pandas or polars
frame, or a Dataset of pyarrow, Ray or Hugging Face. :func:`place_of` names a path on a filesystem object.
What cannot be read is refused at once, in one sentence that names file and row and says the remedy.
"""

from dataset_guard.reading.opening import open_source
from dataset_guard.reading.places import Place, RemotePath, place_of
from dataset_guard.reading.source import BATCH_ROWS, Source

__all__ = ["BATCH_ROWS", "Place", "RemotePath", "Source", "open_source", "place_of"]

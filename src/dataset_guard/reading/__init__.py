"""Reading: every kind of table behind one face, in logical row order, as often as asked.

:func:`open_source` takes a path (Parquet, CSV, JSON Lines, Arrow/Feather, ORC, or a folder of one of
them), a ``pyarrow.Table``, a pandas or polars frame, or a ``pyarrow.dataset.Dataset``. What cannot be
read is refused at once, in one sentence that names file and row and says the remedy.
"""

from dataset_guard.reading.opening import open_source
from dataset_guard.reading.source import BATCH_ROWS, Source

__all__ = ["BATCH_ROWS", "Source", "open_source"]

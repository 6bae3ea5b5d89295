"""GPU telemetry: where it comes from, who it belongs to, and what it says.

Read in this order: ``samples`` (what one reading is), ``sources`` (where readings come from),
``rolling`` (readings on a time grid), ``kernel`` (running statistics of every series at once),
``detectors`` (one file each), ``attribution`` (whose GPU-second it was), ``history`` (Parquet).
All of it is pure except the sources and the history.
"""

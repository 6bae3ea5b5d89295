"""Helper modules beside the tests (``reference_dg1``, ``dg1_tables``) are imported by their bare names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

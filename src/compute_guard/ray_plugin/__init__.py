"""Everything that runs inside or talks to Ray. The only package of compute_guard that imports ray."""

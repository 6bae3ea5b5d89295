"""The ledger: what waits, is admitted and reserved, kept in database and memory, held against Ray."""

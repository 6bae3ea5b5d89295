"""What data is, as hashes: canonical bytes, dg1 fingerprints, row hashes and the set root."""

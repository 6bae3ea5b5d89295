"""Row proofs: a row is in a version, or is not, shown to somebody who has only our public key."""

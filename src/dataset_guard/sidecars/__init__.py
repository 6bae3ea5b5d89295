"""What a version keeps beside its signed record, so that it can be checked, compared and read again."""

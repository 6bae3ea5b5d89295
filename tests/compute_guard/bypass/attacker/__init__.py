"""What a hostile tenant's job does: runs as tenant acme, knows all that is to be known about beta's job."""

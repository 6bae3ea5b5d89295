"""Admission: a submission in; decided, reserved, made room for, explained."""

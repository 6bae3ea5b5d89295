"""A check that lives outside TrainGuard."""

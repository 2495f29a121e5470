"""From problems and models to data to train on: generate, verify, reject."""

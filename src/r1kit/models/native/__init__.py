"""The decoder in C++, built on request: what builds it, and the training pass."""

"""r1kit: DeepSeek-R1 and its open reproductions as one system.

The rooms, in the order in which they may import one another, are listed in `docs/concepts.md`.
"""

__version__ = "0.1.0"

"""Property tests draw the same cases every time and are not timed: a busy machine must not fail a build."""

from hypothesis import settings

settings.register_profile("r1kit", deadline=None, derandomize=True)
settings.load_profile("r1kit")

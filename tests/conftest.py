"""Property tests draw the same examples every time, so that a change is judged by what it changed.

To look for new counterexamples: `pytest --hypothesis-profile=exploring`, with `--hypothesis-seed=N` to come back to them.
"""

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("exploring", derandomize=False, deadline=None)
settings.load_profile("steady")

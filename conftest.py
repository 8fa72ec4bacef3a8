"""What the tests of this checkout share; the suite's own plugin is ``repro.pytest_plugin``."""

from hypothesis import settings

pytest_plugins = ["pytester"]

# A regression suite must find the same examples every time, on however slow a machine.
settings.register_profile("repro", derandomize=True, deadline=None)
settings.load_profile("repro")

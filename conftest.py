"""Makes the suite's plugin, goldens included, available to every test of the checkout."""

from hypothesis import settings

pytest_plugins = ["repro.pytest_plugin", "pytester"]

# A regression suite must find the same examples every time, on however slow a machine.
settings.register_profile("repro", derandomize=True, deadline=None)
settings.load_profile("repro")

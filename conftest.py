"""Makes the suite's plugin, goldens included, available to every test of the checkout."""

pytest_plugins = ["repro.pytest_plugin"]

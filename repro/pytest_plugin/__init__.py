"""The entry point that every pytest beside this package loads: it does nothing but in this checkout.

The checkout's configuration loads the suite (``-p repro.pytest_plugin.suite``). But pytest looks for a
configuration before it knows the suite's options, and takes an existing directory behind one ("--data DIR") for a
place of tests: it looks there, and reads no file of the checkout. Entry points it reads nevertheless, so this one
loads the suite in the configuration's place, and then has pytest start again with the configuration.
"""

from __future__ import annotations

from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SETTINGS = CHECKOUT / "pyproject.toml"


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    if _in_checkout(Path.cwd()):
        pluginmanager.import_plugin("repro.pytest_plugin.suite")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | pytest.ExitCode | None:
    """Start again with the checkout's configuration, where pytest has missed it or a worker may.

    Workers read the same command again, when the report's directory may exist by then.
    """
    here = config.invocation_params.dir
    if not _in_checkout(here) or config.getoption("inifilename") or hasattr(config, "workerinput"):
        return None
    distributed = config.getoption("numprocesses", None) or config.getoption("tx", None)
    places = [Path(here, place.partition("::")[0]).resolve() for place in config.args]
    if (config.inipath == SETTINGS and not distributed) or not all(map(_in_checkout, places)):
        return None
    return pytest.main(
        ["-c", str(SETTINGS), *config.invocation_params.args], config.invocation_params.plugins
    )


def _in_checkout(place: Path) -> bool:
    """Whether a place lies in this checkout, and in no other project within it."""
    nearest = (folder for folder in (place, *place.parents) if (folder / SETTINGS.name).is_file())
    return next(nearest, None) == CHECKOUT

"""Where information flows inside large vision-language models: the method of arXiv 2406.06579."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repro.attention import attention_shares
    from repro.cam import llava_cam
    from repro.cliff import cliff_layer
    from repro.models import load_model
    from repro.sweep import sweep
    from repro.table1 import table1
    from repro.truncation import truncated

#: Function -> its module.
_MODULES = {
    "attention_shares": "repro.attention",
    "cliff_layer": "repro.cliff",
    "llava_cam": "repro.cam",
    "load_model": "repro.models",
    "sweep": "repro.sweep",
    "table1": "repro.table1",
    "truncated": "repro.truncation",
}
__all__ = [
    "attention_shares",
    "cliff_layer",
    "llava_cam",
    "load_model",
    "sweep",
    "table1",
    "truncated",
]


class _Package(ModuleType):
    """Imports a function when it is asked for: torch takes seconds, and ``pytest --help`` needs none of it.

    A function stands before the module of its name, whichever of the two was imported first.
    """

    def __getattribute__(self, name: str) -> Any:
        if name in _MODULES:
            return getattr(sys.modules.get(_MODULES[name]) or import_module(_MODULES[name]), name)
        return super().__getattribute__(name)


sys.modules[__name__].__class__ = _Package

"""The model types that have a small checkpoint, and what is special about each."""

from __future__ import annotations

from .fixed import FIXED
from .kind import Kind
from .native import NATIVE

__all__ = ["KINDS", "Kind"]

#: Described, but not right yet.
UNFINISHED = """
    aria chameleon deepseek_ocr2 deepseek_vl_hybrid dots3_note emu3 ernie4_5_vl_moe fuyu glm46v glm5_next got_ocr2
    granite4_vision minicpmv4_6 minicpmv4_7 mistral3 pp_chart2table shieldgemma2
""".split()
KINDS: dict[str, Kind] = {name: kind for name, kind in (FIXED | NATIVE).items() if name not in UNFINISHED}

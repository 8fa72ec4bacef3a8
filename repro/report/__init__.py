"""Draws what was measured: arrays in, files out. Knows no model, no benchmark and no pytest."""

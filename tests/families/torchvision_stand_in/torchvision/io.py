"""Transformers imports this module; it uses it for files and videos, which nothing here has."""

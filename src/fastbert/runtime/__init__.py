"""Backends that run an exported model, with neither torch nor transformers."""

"""Torch and transformers live here: heads, backbones, the model and its exit backend."""

"""The model folder: what lies in it, how it gets there whole, what is checked before use."""

"""From files of texts to a model folder."""

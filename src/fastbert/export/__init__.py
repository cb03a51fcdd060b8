"""From a trained model to files that run without torch."""

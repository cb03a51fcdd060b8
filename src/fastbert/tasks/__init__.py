"""What a model answers: the one place that knows."""

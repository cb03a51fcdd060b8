"""From recorded answers to thresholds: goals, the path they lie on, and promises."""

"""Side-by-side timing: this model against itself at full depth and against the plain runtimes."""

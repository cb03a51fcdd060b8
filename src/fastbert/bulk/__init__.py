"""Many texts at a time: from files to files."""

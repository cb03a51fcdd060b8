"""Files that stay what they were when opened, and files that are whole or absent."""

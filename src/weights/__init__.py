"""Weight files: reading, writing, names and shapes."""

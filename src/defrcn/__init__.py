"""The detector: box maths, assignment, network parts and their composition."""

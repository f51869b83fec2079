"""Curves and profiles of a run."""

"""Detections on a user's own pictures."""

"""Configuration, device and environment: the lowest layer."""

"""Small programs, run as python -m src.tools.NAME."""

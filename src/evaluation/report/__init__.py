"""The page with curves and sorted pictures."""

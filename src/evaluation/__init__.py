"""From detections to figures, drawings and the report."""

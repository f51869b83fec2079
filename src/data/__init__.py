"""From pictures to batches: transforms, order, MindRecord."""

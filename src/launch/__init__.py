"""Start the processes of one training and end them together."""

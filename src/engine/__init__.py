"""What runs the network: training loop, inference, several processes."""

"""From the configuration to data, network and runs: what the entry points share."""

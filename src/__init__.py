"""DeFRCN on MindSpore."""

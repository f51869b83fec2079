"""The detector as it leaves home: graph, manifest, results."""

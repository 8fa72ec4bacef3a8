"""Run a model over a benchmark, and its instruments over the answers."""

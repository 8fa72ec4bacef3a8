"""What arXiv 2406.06579 states, as data, and measured figures against it."""

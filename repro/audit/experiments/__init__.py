"""What the miniatures show of the paper's claims: functions ``(paper, load) -> Finding``, by subject."""

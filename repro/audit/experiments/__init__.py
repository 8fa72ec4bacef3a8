"""What the miniatures show of the paper's claims: functions ``(load) -> Shown``, one file per subject."""

"""A paper's claims as a ledger: what it states, as data, and what arithmetic, files and miniatures say of it."""

"""Shows what was measured: tables, figures, two pages, and what a session prints when it ends."""

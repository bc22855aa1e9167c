"""What a run found: figures, a self-contained page and the table in the terminal. Host code."""

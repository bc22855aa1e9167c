"""Results as figures, HTML pages and tables in the terminal."""

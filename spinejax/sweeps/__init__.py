"""Sweeps: the members of a config's sweep(), their runs here or on Slurm, and their table."""

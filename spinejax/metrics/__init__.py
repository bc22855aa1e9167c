"""Metrics as counts that add up: over batches, hosts and cases."""

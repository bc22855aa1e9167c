"""Configs of the papers; `common` holds every field once."""

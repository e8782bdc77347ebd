"""The native pool of threads."""

"""A cluster: its API, what is kept of one that failed, probes inside of it."""

"""The repository's files: where they are, the pins, the list of tenants, the results."""

"""Where the deployment runs: every provider is a `Stack`."""

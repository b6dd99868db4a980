"""From a release that runs today to the one that a merge makes of it: what happens to its data."""

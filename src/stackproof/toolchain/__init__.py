"""The programs: built, fetched, made into images."""

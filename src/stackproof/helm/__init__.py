"""Charts rendered in this process, and questions to what they render."""

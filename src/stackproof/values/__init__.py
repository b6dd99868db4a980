"""Values: their combinations, what they leave untried or unused, their documentation."""

"""How fast the jobs are, beside what a user would take instead."""

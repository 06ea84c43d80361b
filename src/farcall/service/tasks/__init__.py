"""Tasks: submission, state, results, groups, cancellation."""

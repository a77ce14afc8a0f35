"""Which rule a request falls under, what it requires, what it injects."""

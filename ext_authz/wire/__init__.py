"""CheckRequest to facts, decision to CheckResponse."""

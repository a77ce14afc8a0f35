"""Configuration files: model, loading, JSON Schema."""

"""Access tokens: strict JOSE, keys, claims, binding."""

"""What a platform's proxy must be told so that it asks this server, and what is then missing in a request it sent."""

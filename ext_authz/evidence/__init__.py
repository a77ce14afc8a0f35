"""Raw credentials in a request, by grammar alone: nothing here is verified."""

"""Everything that waits: transports, fetching, watching, health, admin."""

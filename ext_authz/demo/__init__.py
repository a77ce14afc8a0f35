"""The whole thing on loopback: authorization server, upstream, Envoy, scenarios."""

"""Who the peer is: certificate, trust bundles, SPIFFE ID."""

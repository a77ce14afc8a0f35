"""Other servers that do the same job, built from the Go module proxy by the versions that `go.sum` pins."""

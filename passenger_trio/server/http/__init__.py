"""One HTTP connection: its state, and a file for each stage of a request."""

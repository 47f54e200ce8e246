run 42

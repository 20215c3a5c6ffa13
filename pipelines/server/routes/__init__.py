"""The routes, by whose API they are, and their request bodies."""

"""The Replit decoder: config, weight names, graph and compiled model. Imports nothing by itself."""

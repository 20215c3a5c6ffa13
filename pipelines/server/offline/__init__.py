"""Batch files: lines of requests in, lines of answers out, by the server's own routes without HTTP.

In comes a file as OpenAI's batch interface has it; out go its results, which a later run goes on with.
"""

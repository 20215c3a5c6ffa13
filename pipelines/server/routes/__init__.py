"""The routes, a folder for each API with its request bodies; here what all share: fields, admission, sampling, jobs.

A request body goes in, checked; a Plan for each text goes to the service; what comes back is written as its API has it.
"""

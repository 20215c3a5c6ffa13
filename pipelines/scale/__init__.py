"""More than one machine, by Ray: batch files and evaluations on Ray Data, the server's routes on Ray Serve.

Ray distributes, retries and scales; in each of its actors runs what runs on one machine.
"""

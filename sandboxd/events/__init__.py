"""Event mode: what was accepted runs at least once, whatever is killed; what fails goes where its function says.

Room: service. May: run functions through the scheduler, write spool files, talk to endpoints that the configuration
names. May not: know HTTP requests of clients.
"""

"""AWS Lambda's REST API, version 2015-03-31, and the administration of the daemon.

Room: service. May: store, scheduler and logs through their protocols. May not: any environment's inside.
"""

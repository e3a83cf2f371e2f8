"""One live sandbox from the service's side: its Runtime API, its log, its life.

Room: service. May: the descriptors that the builder passed out, the service's own directory of logs.
May not: know of other environments, of the REST API, or of what is scheduled.
"""

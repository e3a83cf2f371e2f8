"""What survives a restart: functions, code packages, access keys; and the index of images.

Room: service. May: the service's own directory, the builder's Unpack and RemoveCode. May not: know HTTP.
"""

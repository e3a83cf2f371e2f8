"""Which environment serves which invocation.

Room: service. May: environments and the door to the builder. May not: know HTTP or the store.
"""

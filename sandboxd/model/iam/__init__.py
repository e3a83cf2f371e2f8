"""IAM's policy language: documents, conditions and the decision over them.

Room: model.
"""

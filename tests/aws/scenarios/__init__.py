"""What AWS was asked: the function of a scenario's name without `test_` plays it, given the texts in its brackets.

The requests follow from the names of scenarios and steps, and from the tests of LocalStack, which recorded the answers.
"""

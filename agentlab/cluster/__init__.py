"""Environments on the nodes of a Ray cluster; the policy, the attempt loop and the run directory stay with the driver.

What breaks on a node, or with it, is a failure of the machinery like any other: the attempt is void and is made elsewhere.
"""

"""Recorded attempts gone through again: in a fresh environment, or by the policy that made them."""

"""The rules of secret format 1, in which handlers get placeholders in place of secrets.

A run keeps them for life: it is resumed, forked and replayed by them. New runs have format 2.
"""

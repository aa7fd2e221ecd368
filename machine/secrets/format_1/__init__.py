"""The rules of recordings of secret format 1, in which handlers see handles in the place of secrets.

Runs that were started under it are resumed, forked and replayed by it, for ever. New runs have format 2.
"""

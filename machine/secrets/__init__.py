"""What may never be stored, and how it is replaced: names, patterns, handles, and the vault that knows the values.

Everything here is pure: no file, no environment, no log. `policy` says what is secret, `handle` what stands in its
place, `walk` finds it in JSON and in text, `vault` knows a run's values, `scan` looks through what was stored.
"""

"""The pure kernel: `fold` interprets a log and `decide` chooses the next step. No IO, no clock, no randomness."""

"""The pure kernel: `fold` says what a log means, `decide` says what comes next. No IO, no clock, no randomness."""

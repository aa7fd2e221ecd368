"""The only door to the outside: what a handler sees, live and in replay, and the transports behind it."""

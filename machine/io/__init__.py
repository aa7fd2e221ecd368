"""The only door to the outside world: the `io` of a handler, live and in replay, and the transports behind it."""

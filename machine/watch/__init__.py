"""Watching of handlers: whatever they do to the outside world, or learn from it, without `io`.

This package needs nothing else of `machine`.
"""

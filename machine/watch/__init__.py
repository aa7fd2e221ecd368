"""Watching what a handler does to the outside, or learns from it, without `io`.

This package needs nothing else of `machine`.
"""

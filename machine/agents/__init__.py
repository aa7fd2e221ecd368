"""Adapters for libraries of agents: each call of a model or a tool is a recorded step.

Nothing here is imported until it is named, as each module needs the library that it is for.
"""

"""Secrets: how they are found, replaced in what is stored, and sealed. A run keeps one of two formats for life.

Format 2 (`run_secrets`): handlers get true values; the store holds placeholders, and the true values as ciphertext.
Format 1 (`format_1`): handlers get placeholders, which are replaced when a request leaves the process.
"""

"""What may never be stored, and how it is replaced. Two formats, each with rules that hold for the life of a run.

Format 2 (`run_secrets`): handlers have true values, the store has placeholders, and ciphertext beside them.
Format 1 (`handles`): handlers have what stands in a secret's place.
"""

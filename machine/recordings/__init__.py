"""What is done with a recording: replay it, say where it diverges, verify it."""

"""Render images and videos at paid providers, each paid for exactly once."""

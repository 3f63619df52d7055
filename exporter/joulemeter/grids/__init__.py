"""Grid sources: how dirty the power is."""

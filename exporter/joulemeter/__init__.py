"""joulemeter: measured GPU joules, joined to the tokens they bought."""

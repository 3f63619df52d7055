"""The shell: clock, threads, HTTP, supervision."""

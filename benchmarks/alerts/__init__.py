"""How often alerts cry wolf and how long they take: simulated weeks, real books, a real Prometheus, the real rules."""

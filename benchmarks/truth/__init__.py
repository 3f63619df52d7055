"""The simulator with its truth, offline: traffic, engines and a sensor, thousands of times faster than real time."""

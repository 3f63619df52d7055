"""What the report of truth says between its tables."""

from typing import Final

HEAD: Final = """\
# How wrong it can be

Written by `make bench-truth`; edit `benchmarks/truth`, not this page. Nothing here depends on the machine or
the date, but for the last digit. `make bench-truth-quick` prints a small part of it in a minute or two.

No sensor sees whose joule it was, so these figures come from a simulation in which every joule has an owner by
construction ([adr/0008](adr/0008-simulator.md) says what it leaves out). Readings of the GPUs' energy counters
and pages of the servers go through the daemon's own books; what they book is held against the truth.
{hours}, seeds {seeds}; the first hour is warm-up and does not count.
Days are Mondays: nights with hardly a request, afternoons at the peak. Kinds of servers are run with the first two
seeds, noise and clocks with the first, other models and GPUs with one each.

In the tables, `+0.3 (0.4)` is: over the whole run 0.3 % too much was booked (bias), and minute by minute the
absolute errors add up to 0.4 % of the truth (weighted error). Of several seeds the worst is shown, for each
figure by itself. `all` is a model's energy with its part of idle, `work` without it. `wanted` is the largest
bias allowed, in parentheses the largest weighted error; without it, we have set ourselves no number.
"""

SCENARIOS_TEXT: Final = """\
Beside joulemeter's estimator stand, on the very same windows:

* *token share*: all energy by tokens, prompts (cached tokens too) as prefill, generated ones as decode; idle is what
  was drawn in windows without tokens;
* *idle off, token share*: the same after the true idle draw, which it is told, was subtracted from every second;
* *prior, not fitted*: idle as joulemeter tells it, the rest by the figures it begins with, never adapted. Those figures
  are of Llama-3.1-8B on an H100, so where that pair is simulated, **this column is right by construction**: look at it
  where other models run.

"""

WRONG_PRIOR_TEXT: Final = """\
The estimator again, begun from a prior in which one figure is three times too high (x3) or too low (/3).

"""

PAIRS_TEXT: Final = """\
The scenarios above are of an 8B model on one H100 where they do not say otherwise. Here they are on other
pairs, with as many fewer requests as their steps are longer. The prior is the same for all.

"""

KINDS_TEXT: Final = """\
What an engine tells, and when, differs. `vllm` counts steps, and tokens as they come; `sglang` has no steps but
the time between tokens; `llamacpp` counts generated tokens when a request ends, and has a live count of slots;
`generic` tells nothing before a request has ended. Weighted errors here are of **ten-minute windows**, not of
minutes.

"""

SENSORS_TEXT: Final = """\
As in the first table, with the counter's errors (noise is autoregressive from tick to tick, drift a sine of two
hours) or with pages that come up to so much earlier or later than they say.

"""

REQUESTS_TEXT: Final = """\
55 % chats, 20 % tiny requests, 15 % long prompts and 10 % agents with cached prompts, on one H100 with an 8B
model, every request with its true energy. *pool ratio* bills a request with the server's energy while it ran,
by its part of the tokens in that time, up to a cap; *weighted tick* shares every second's energy by estimated
work (its figures doubled one by one: `x2`); *histogram, as published* is
`joulemeter_model_request_energy_joules`, which sees no single request, only how long they were. `sum over true`
below 1 is energy that nobody was billed for.

"""

EXPECTED_TEXT: Final = """\
Measured over expected energy of each hour (`joulemeter_model_compared_energy_joules_total` over
`joulemeter_model_expected_energy_joules_total`), once the baseline is frozen after a week. The truth is what the
servers took, over what the same steps would have taken if nothing had gone wrong. Errors are in points
(hundredths), over hours with more than a request a minute; wanted is 3 on the engine basis, in every hour. The
load basis answers another question (energy per token at this load) and has no number here.

"""

TAIL: Final = """\
## To run it

    make bench-truth          # prints and writes this page: about twenty-five minutes on two cores
    make bench-truth-quick    # prints a small part: one or two minutes

`tests/test_accuracy.py` asserts the main numbers over parts of a day, with every run of the tests.
"""

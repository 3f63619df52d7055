"""What splitting costs: CPU of the estimator and all around it, for windows of ten seconds.

PYTHONPATH=. python -m benchmarks.splitting
"""

import random
import time

from joulemeter.attributor import Attributor
from joulemeter.busy import Tick
from joulemeter.model import EnergySource, Gpu, User
from joulemeter.windows import Measured, Used
from joulemeter.work import Work

WINDOW_SECONDS = 10.0
WINDOWS = 400


def share_of_a_core(gpus: int, models_each: int) -> float:
    """Return the share of a core that so many GPUs take, each with so many busy models of its own."""
    attributor, drawn = Attributor(), random.Random(0)  # noqa: S311 - made-up work, no secret
    boards = [Gpu(i, f"GPU-{i}", "simulated", "580.95.05", EnergySource.COUNTER, 700.0) for i in range(gpus)]
    spent_seconds = 0.0
    for _ in range(WINDOWS):
        for board in boards:
            ticks = tuple(Tick(0.1, drawn.uniform(400.0, 600.0)) for _ in range(100))
            window = Measured(board, drawn.uniform(4500.0, 5500.0), WINDOW_SECONDS, ticks)
            uses = {
                User(f"server-{board.index}-{number}", "m"): Used(_work(drawn), frozenset({board.uuid}))
                for number in range(models_each)
            }
            begun = time.process_time()
            attributor.attribute({board.uuid: window}, uses)
            spent_seconds += time.process_time() - begun
    return spent_seconds / WINDOWS / WINDOW_SECONDS


def _work(drawn: random.Random) -> Work:
    return Work(
        prompt_tokens=drawn.uniform(1e3, 2e4),
        generation_tokens=drawn.uniform(1e3, 2e4),
        running_seconds=drawn.uniform(10.0, 300.0),
        steps=drawn.uniform(100.0, 900.0),
        first_tokens=drawn.uniform(10.0, 60.0),
        context_token_seconds=drawn.uniform(1e4, 1e6),
    )


def main() -> None:
    """Print the cost for eight models, one to a GPU and all on one."""
    for gpus, models_each in ((8, 1), (4, 2), (1, 8)):
        share = share_of_a_core(gpus, models_each)
        print(f"{gpus} GPUs with {models_each} models each: {share:.4%} of a core")


if __name__ == "__main__":
    main()

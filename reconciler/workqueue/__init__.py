"""Hold keys that wait to be worked on.

Keys, not events: a hundred events of one object are one run. The guarantees, each of them a test:

* **One worker a key.** A key that was handed out is not handed out again before `done`. Added meanwhile, it runs once
  more afterwards, at the tail.
* **Several adds are one run.** The run takes the timer and all reasons with it.
* **One timer a key.** A delay keeps the earlier of two times; a plain add makes the key ready now and drops the timer;
  a delay on a key that is ready moves nothing.
* **Reasons.** Each add says why. `retract` takes one reason back, and with the last one the run.
* **Fair.** First in, first out within a priority, and no key starves: after `PATIENCE` hand-outs from the highest
  priority in a row, the key that is ready longest in any lower one is served. With ``fair_by``, groups of keys take
  turns, and each group has this order of its own.
* **Nothing is lost.** A cancelled `get` passes the key on. Draining waits for everything that is ready or in hand; what
  a shutdown drops is counted; nobody is left hanging.
* **Nothing is kept.** A key that is done and has no failures on record costs no memory, nor do timers that were moved.

The queue belongs to one event loop (`add_threadsafe` is for everybody else) and needs nothing of Kubernetes. An add, a
hand-out or a timer costs O(log n) at most. Clock, rate limiter and metrics are handed in.
"""

from reconciler.workqueue.item import QueueItem
from reconciler.workqueue.limiters import (
    ExponentialBackoff,
    FastSlow,
    MaxOf,
    RateLimiter,
    SharedBudget,
    TokenBucket,
    WithMaxWait,
)
from reconciler.workqueue.metrics import QueueMetrics
from reconciler.workqueue.order import PATIENCE
from reconciler.workqueue.queue import QueueShutDown, WorkQueue
from reconciler.workqueue.reasons import MAX_REASONS
from reconciler.workqueue.reports import Explanation, QueueStatistics, Run

__all__ = [
    "MAX_REASONS",
    "PATIENCE",
    "Explanation",
    "ExponentialBackoff",
    "FastSlow",
    "MaxOf",
    "QueueItem",
    "QueueMetrics",
    "QueueShutDown",
    "QueueStatistics",
    "RateLimiter",
    "Run",
    "SharedBudget",
    "TokenBucket",
    "WithMaxWait",
    "WorkQueue",
]

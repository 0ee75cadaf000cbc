"""A queue of keys that wait to be processed.

Keys, not events: a hundred events of one object are processed once. The guarantees, each of them tested:

* **One worker per key.** A key in progress is not returned again before `done`. If it is added in between, it is
  processed once more afterwards, from the tail.
* **Several adds are processed once.** The processing covers the timer and all reasons.
* **One timer per key.** A delay keeps the earlier of two times. A plain add makes the key ready now and drops the
  timer. A delay on a ready key changes nothing.
* **Reasons.** Each add says why. `retract` removes one reason, and with the last one the pending processing.
* **Fairness.** First in, first out within a priority, and no key starves: after 100 keys in a row from the highest
  priority, the key that has been ready longest in any lower one is next. With ``fair_by``, groups of keys take turns,
  and each group has this order of its own.
* **Nothing is lost.** A cancelled `get` leaves the key to the next worker. Draining waits for all keys that are ready
  or in progress. What a shutdown drops is counted. No caller is left waiting.
* **Nothing is kept.** A key that is done and has no recorded failures costs no memory, nor do timers that were moved.

The queue belongs to one event loop (other threads use `add_threadsafe`) and knows nothing of Kubernetes. An add, a get
or a timer costs O(log n) at most. Clock, rate limiter and metrics are injected.
"""

from reconciler.workqueue.concurrency_limit import ConcurrencyLimit
from reconciler.workqueue.queue import Explanation, QueueMetrics, QueueShutDown, QueueStatistics, WorkQueue
from reconciler.workqueue.rate_limiters import (
    ExponentialBackoff,
    FastSlow,
    MaxOf,
    RateLimiter,
    TokenBucket,
    WithMaxWait,
)

__all__ = [
    "ConcurrencyLimit",
    "Explanation",
    "ExponentialBackoff",
    "FastSlow",
    "MaxOf",
    "QueueMetrics",
    "QueueShutDown",
    "QueueStatistics",
    "RateLimiter",
    "TokenBucket",
    "WithMaxWait",
    "WorkQueue",
]

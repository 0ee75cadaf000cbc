"""Be the process: put cache, client and controllers together, start and stop them in order, tell how they fare.

A `Manager` promises:

* **Order.** HTTP servers, webhooks, cache, runnables, leader election, controllers start one after the other; they stop
  the other way round, so that what is still working has what it needs.
* **Draining.** SIGTERM and SIGINT stop new events; what is ready and in hand is finished within the grace period. A
  second signal ends the process at once, with exit code 1.
* **No silent death.** A runnable or a worker that fails stops the manager, and its exception is raised from
  `Manager.run`, or inside the block of `Manager.running`.
* **Shared work.** With ``sharding=`` several replicas work, each on its part of the objects; see `_handover`.
* **One leader,** as far as a lease can promise that; what exactly is promised stands in `_leader`.
"""

from reconciler.manager.election.options import LeaderElection
from reconciler.manager.errors import GracePeriodExceeded, LeadershipLost, ManagerError, NotLeader
from reconciler.manager.manager import Manager
from reconciler.manager.runnables import Runnable
from reconciler.manager.sharding.options import ShardByIndex, Sharding, ShardRing
from reconciler.manager.statistics import ManagerStatistics

__all__ = [
    "GracePeriodExceeded",
    "LeaderElection",
    "LeadershipLost",
    "Manager",
    "ManagerError",
    "ManagerStatistics",
    "NotLeader",
    "Runnable",
    "ShardByIndex",
    "ShardRing",
    "Sharding",
]

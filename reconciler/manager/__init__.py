"""The manager: one process with its cache, client and controllers, from start to shutdown.

A `Manager` guarantees:

* **Order.** HTTP servers, webhooks, cache, runnables, leader election and controllers start in this order and stop in
  reverse order, so everything that still runs has what it depends on.
* **Draining.** SIGTERM and SIGINT stop new events. Ready keys and reconciles in progress are finished within the grace
  period. A second signal exits immediately with exit code 1.
* **No silent failure.** A runnable or worker that fails stops the manager. Its exception is raised from `Manager.run`,
  or inside the block of `Manager.running`.
* **Sharding.** With ``sharding=`` several replicas are active, each for its part of the objects; see
  `reconciler.manager.sharding`.
* **One leader,** as far as a lease can guarantee it; see `reconciler.manager.election`.
"""

from reconciler.manager.election import LeaderElection, LeadershipLost, NotLeader
from reconciler.manager.endpoints.security import EndpointSecurity
from reconciler.manager.manager import Manager
from reconciler.manager.runnables import GracePeriodExceeded, Runnable
from reconciler.manager.sharding import ShardByIndex, Sharding, ShardRing

__all__ = [
    "EndpointSecurity",
    "GracePeriodExceeded",
    "LeaderElection",
    "LeadershipLost",
    "Manager",
    "NotLeader",
    "Runnable",
    "ShardByIndex",
    "ShardRing",
    "Sharding",
]

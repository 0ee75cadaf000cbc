"""Pravega's ZooKeeper operator: the published bugs 312 (recreate), and 314 and 453 (scale)."""

environment = {"WATCH_NAMESPACE": "default", "POD_NAME": "operator-0", "OPERATOR_NAME": "zookeeper-operator"}
served_until = "1.21"


def cluster(replicas=1):
    return {
        "apiVersion": "zookeeper.pravega.io/v1beta1",
        "kind": "ZookeeperCluster",
        "metadata": {"name": "zk", "namespace": "default"},
        "spec": {"replicas": replicas, "persistence": {"reclaimPolicy": "Delete"}},
    }


async def recreate(world):
    await world.create(cluster())
    await world.settle()
    await world.delete(cluster())
    await world.settle()
    await world.create(cluster())
    await world.settle()


async def scale(world):
    await world.create(cluster(2))
    await world.settle()
    for replicas in (1, 2):
        await world.patch(cluster(), {"spec": {"replicas": replicas}})
        await world.settle()

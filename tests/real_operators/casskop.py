"""Orange's Cassandra operator: the published bugs 316 (recreate), 321 (budget), 342 and 370 (scale)."""

environment = {"WATCH_NAMESPACE": "default", "POD_NAME": "operator-0", "OPERATOR_NAME": "casskop", "LOG_LEVEL": "Info"}
served_until = "1.21"


def cluster(**spec):
    return {
        "apiVersion": "db.orange.com/v1alpha1",
        "kind": "CassandraCluster",
        "metadata": {"name": "ring", "namespace": "default"},
        "spec": {
            "nodesPerRacks": 1,
            "deletePVC": True,
            "dataCapacity": "1Gi",
            "resources": {
                "requests": {"cpu": "1", "memory": "2Gi"},
                "limits": {"cpu": "1", "memory": "2Gi"},
            },
            "topology": {"dc": [{"name": "dc1", "nodesPerRacks": 1, "rack": [{"name": "rack1"}]}]},
            **spec,
        },
    }


async def recreate(world):
    await world.create(cluster())
    await world.settle()
    await world.delete(cluster())
    await world.settle()
    await world.create(cluster())
    await world.settle()


async def budget(world):
    await world.create(cluster(maxPodUnavailable=4))
    await world.settle()
    await world.patch(cluster(), {"spec": {"maxPodUnavailable": 1}})
    await world.settle()

"""Instaclustr's Cassandra operator: the published bugs 402 (recreate), 398 and 407 (scale)."""

environment = {"WATCH_NAMESPACE": "default", "POD_NAME": "operator-0", "OPERATOR_NAME": "cassandra-operator"}
served_until = "1.21"


def data_center(nodes=1):
    return {
        "apiVersion": "cassandraoperator.instaclustr.com/v1alpha1",
        "kind": "CassandraDataCenter",
        "metadata": {"name": "dc1", "namespace": "default"},
        "spec": {
            "cluster": "ring",
            "nodes": nodes,
            "racks": [{"name": "west1-a"}],
            "cassandraImage": "cassandra:3.11.9",
            "sidecarImage": "sidecar:1",
            "resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}},
            "dataVolumeClaimSpec": {
                "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
            "deletePVCs": True,
            "optimizeKernelParams": False,
        },
    }


async def recreate(world):
    await world.create(data_center())
    await world.settle()
    await world.delete(data_center())
    await world.settle()
    await world.create(data_center())
    await world.settle()

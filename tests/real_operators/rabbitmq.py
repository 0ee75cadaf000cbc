"""RabbitMQ's operator: the published bugs 648 (recreate), 653 and 782 (resize) and 758 (scale)."""

environment = {"OPERATOR_NAMESPACE": "default"}


def cluster(replicas=1, storage="10Gi"):
    return {
        "apiVersion": "rabbitmq.com/v1beta1",
        "kind": "RabbitmqCluster",
        "metadata": {"name": "queue", "namespace": "default"},
        "spec": {"replicas": replicas, "persistence": {"storage": storage, "storageClassName": "standard"}},
    }


async def recreate(world):
    await world.create(cluster())
    await world.settle()
    await world.delete(cluster())
    await world.settle()
    await world.create(cluster())
    await world.settle()


async def resize(world):
    await world.create(cluster())
    await world.settle()
    await world.patch(cluster(), {"spec": {"persistence": {"storage": "15Gi"}}})
    await world.settle()


async def scale(world):
    await world.create(cluster())
    await world.settle()
    for replicas in (3, 2):
        await world.patch(cluster(), {"spec": {"replicas": replicas}})
        await world.settle()

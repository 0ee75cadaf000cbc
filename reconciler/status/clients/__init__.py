"""Status writers for other clients: kubernetes, kubernetes_asyncio, kopf."""

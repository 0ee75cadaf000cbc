"""An operator on kopf: for each Site it keeps a ConfigMap with its pages."""

import os
from typing import Any

import kopf
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

config.load_kube_config(os.environ["KUBECONFIG"])
core = client.CoreV1Api()


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    settings.posting.enabled = False
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="example.com")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix="example.com")


@kopf.on.resume("example.com", "v1", "sites")
@kopf.on.create("example.com", "v1", "sites")
@kopf.on.update("example.com", "v1", "sites", field="spec")
def publish(spec: Any, name: str, namespace: str, patch: Any, **_: Any) -> None:
    page = {
        "metadata": {"name": f"{name}-pages"},
        "data": {"pages": str(spec["pages"]), "title": spec.get("title", "")},
    }
    kopf.adopt(page)
    try:
        core.create_namespaced_config_map(namespace, page)
    except ApiException as error:
        if error.status != 409:
            raise
        core.patch_namespaced_config_map(f"{name}-pages", namespace, page)
    patch.status["published"] = spec["pages"]

"""References to other objects, in the form of the core API."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from reconciler.objects.markers import schema_extra
from reconciler.objects.model import Model

__all__ = ["ConfigMapKeySelector", "LocalObjectReference", "SecretKeySelector", "TypedObjectReference"]

# Replaced as a whole by server-side apply, as in the core API: half of two references is none.
_ATOMIC = ConfigDict(json_schema_extra=schema_extra(map_type="atomic"))


class LocalObjectReference(Model):
    """A reference to an object in the same namespace."""

    model_config = _ATOMIC

    name: str = Field(min_length=1, max_length=253, description="Name of the object.")


class SecretKeySelector(LocalObjectReference):
    """A key of a Secret in the same namespace."""

    name: str = Field(min_length=1, max_length=253, description="Name of the Secret.")
    key: str = Field(min_length=1, max_length=253, description="Key in the Secret.")
    optional: bool | None = Field(default=None, description="Whether the Secret or the key may be missing.")


class ConfigMapKeySelector(LocalObjectReference):
    """A key of a ConfigMap in the same namespace."""

    name: str = Field(min_length=1, max_length=253, description="Name of the ConfigMap.")
    key: str = Field(min_length=1, max_length=253, description="Key in the ConfigMap.")
    optional: bool | None = Field(default=None, description="Whether the ConfigMap or the key may be missing.")


class TypedObjectReference(LocalObjectReference):
    """A reference to an object of any kind."""

    api_group: str | None = Field(default=None, max_length=253, description="API group; absent for the core group.")
    kind: str = Field(min_length=1, max_length=63, description="Kind of the object.")
    name: str = Field(min_length=1, max_length=253, description="Name of the object.")
    namespace: str | None = Field(
        default=None, max_length=63, description="Namespace of the object; absent for the namespace of the referrer."
    )

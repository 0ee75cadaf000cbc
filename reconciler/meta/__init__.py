"""Work on Kubernetes objects as plain JSON: dicts, lists and scalars, nothing else.

References and kinds, the metadata that controllers read, conditions, owner references, finalizers, paths, RFC 7386
merge patches, equality by meaning, and the word that a running reconcile has with the rooms below it. No I/O, no clock.
"""

from reconciler.meta._conditions import (
    condition_is_true,
    find_condition,
    keep_transition_times,
    remove_condition,
    set_condition,
)
from reconciler.meta._cycle import Cycle, current_cycle
from reconciler.meta._equality import equal, is_object, without_nulls
from reconciler.meta._field_managers import (
    FORMER_FIELD_MANAGER,
    check_field_manager,
    counted_as_applied,
    default_field_manager,
    difference_of_fields,
    program_name,
    union_of_fields,
)
from reconciler.meta._finalizers import add_finalizer, has_finalizer, remove_finalizer
from reconciler.meta._merge import merge_diff, merge_patch
from reconciler.meta._owners import AlreadyOwned, controller_of, owner_reference, set_controller_reference
from reconciler.meta._parts import UNDECODABLE, json_elements, json_members
from reconciler.meta._paths import PathError, delete_path, format_path, get_path, parse_path, set_path
from reconciler.meta._quantity import parse_quantity
from reconciler.meta._reference import (
    GroupVersionKind,
    Request,
    ResourceType,
    gvk_of,
    name_of,
    namespace_of,
    path_segment,
    request_of,
    uid_of,
    version_of,
)
from reconciler.meta._time import format_micro_time, format_time, parse_time
from reconciler.meta._versions import Version, is_newer, parse_version

__all__ = [
    "FORMER_FIELD_MANAGER",
    "UNDECODABLE",
    "AlreadyOwned",
    "Cycle",
    "GroupVersionKind",
    "PathError",
    "Request",
    "ResourceType",
    "Version",
    "add_finalizer",
    "check_field_manager",
    "condition_is_true",
    "controller_of",
    "counted_as_applied",
    "current_cycle",
    "default_field_manager",
    "delete_path",
    "difference_of_fields",
    "equal",
    "find_condition",
    "format_micro_time",
    "format_path",
    "format_time",
    "get_path",
    "gvk_of",
    "has_finalizer",
    "is_newer",
    "is_object",
    "json_elements",
    "json_members",
    "keep_transition_times",
    "merge_diff",
    "merge_patch",
    "name_of",
    "namespace_of",
    "owner_reference",
    "parse_path",
    "parse_quantity",
    "parse_time",
    "parse_version",
    "path_segment",
    "program_name",
    "remove_condition",
    "remove_finalizer",
    "request_of",
    "set_condition",
    "set_controller_reference",
    "set_path",
    "uid_of",
    "union_of_fields",
    "version_of",
    "without_nulls",
]

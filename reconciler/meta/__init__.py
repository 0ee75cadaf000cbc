"""Work on Kubernetes objects as plain JSON: dicts, lists and scalars, nothing else.

References and kinds, the metadata that controllers read, conditions, owner references, finalizers, paths, RFC 7386
merge patches, equality by meaning, and the word that a running reconcile has with the rooms below it. No I/O, no clock.
"""

from reconciler.meta.conditions import (
    condition_is_true,
    find_condition,
    keep_transition_times,
    remove_condition,
    set_condition,
)
from reconciler.meta.cycle import Cycle, current_cycle
from reconciler.meta.equality import equal, is_object, without_nulls
from reconciler.meta.field_managers import (
    FORMER_FIELD_MANAGER,
    check_field_manager,
    counted_as_applied,
    default_field_manager,
    difference_of_fields,
    program_name,
    union_of_fields,
)
from reconciler.meta.finalizers import add_finalizer, has_finalizer, remove_finalizer
from reconciler.meta.merge import merge_diff, merge_patch
from reconciler.meta.owners import AlreadyOwned, controller_of, owner_reference, set_controller_reference
from reconciler.meta.parts import UNDECODABLE, json_elements, json_members
from reconciler.meta.paths import PathError, delete_path, format_path, get_path, parse_path, set_path
from reconciler.meta.quantity import parse_quantity
from reconciler.meta.reference import (
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
from reconciler.meta.time import format_micro_time, format_time, parse_time
from reconciler.meta.versions import Version, is_newer, parse_version

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

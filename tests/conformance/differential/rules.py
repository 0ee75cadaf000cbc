"""Name what both servers are knowingly different in."""

RULES = {
    "empty-maps": "maps of ConfigMaps and Secrets that are empty: Go tells an empty map from none while it validates",
    "whole-workloads": "Pods and Deployments that lack what a server would add or demand",
    "empty-applies": "empty maps and lists in what is applied: the real server writes such objects anew each time",
    "repeated-findings": "how often and in which order findings and conflicts are listed, which is chance",
    "paged-deletions": "a limit for the deletion of a collection",
    "null-defaults": "null for a member with a default in what is applied",
    "misnamed-applies": "what is wrong in an applied document beside its name",
    "born-dying": "a deletionTimestamp in an apply or PUT that creates: the real server keeps it",
    "scale-accessors": "an object whose replicas cannot be found since what should hold them is no object",
    "schemas-that-drop": "versions of a kind whose schemas do not have the same fields",
    "numbers-beyond-int64": "integers of more than 64 bits and less than 1e21, which Go writes with all their digits",
    "owned-objects": "owner references: no garbage collector runs beside the real server of the tests",
    "periodic-bookmarks": "bookmarks that come when a server likes",
    "zero-values": "zero in numbers of built-in kinds that a server leaves out when they are zero",
    "undeclared-fields": "what is wrong in an applied document beside an unknown field: Go's maps have no order",
    "echoed-documents": "the order of members in a document that a complaint quotes",
}
"""What is never drawn, or left out of comparisons, since the servers are knowingly different in it."""

"""The server around the verbs: sockets, dispatch, request log, discovery."""

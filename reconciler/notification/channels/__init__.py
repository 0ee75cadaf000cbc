"""The channels of this library. `reconciler.notification.channel` defines the `Channel` protocol.

``console``, ``log`` and ``file`` need no configuration. The others are created from the receivers of a routing
configuration, each with its receiver's limits (`LimitedChannel`).
"""

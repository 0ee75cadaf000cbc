"""The channels of single services, one module each: chats, incident management, event brokers."""

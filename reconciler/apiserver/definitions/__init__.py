"""CustomResourceDefinitions and the OpenAPI documents of what they define."""

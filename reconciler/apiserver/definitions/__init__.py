"""CustomResourceDefinitions, and the OpenAPI documents of all served kinds."""

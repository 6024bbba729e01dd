"""Ready-made graph files, and the exact engine that answers behind real Dynamo."""

"""The web console: pages that show and do what the REST API offers the viewer, and nothing else."""

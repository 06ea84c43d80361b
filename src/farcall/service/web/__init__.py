"""What every route needs and no route decides: bodies, limits, error documents, the description of the interface."""

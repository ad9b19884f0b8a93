"""Labels and outcomes that come after a prediction: kept predictions, joins, and what they say of a model."""

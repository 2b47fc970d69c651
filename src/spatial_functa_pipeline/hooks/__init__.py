"""What happens around a run: parameters, places, freshness, MLflow, advice, the summary."""

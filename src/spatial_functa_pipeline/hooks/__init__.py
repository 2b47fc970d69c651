"""What happens around a run: parameters, places, freshness, pictures, MLflow, advice, the summary."""

"""From anomaly maps to metrics, image scores and alarm thresholds."""

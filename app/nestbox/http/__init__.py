"""What a worker answers over HTTP: health, metrics, discovery and the web chat."""

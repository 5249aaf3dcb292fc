"""nestboxctl, the operator's command."""

"""The stream as a state machine: negotiation up to resource binding, without input or output."""

"""What JAX traces and compiles while a block of code runs."""

from contextlib import contextmanager

import jax

# Of XLA's compiler alone.
BACKEND = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compile_events(name="compile"):
    """Functions that JAX traces and compiles, one for every event whose kind contains a name."""
    events = []

    def listen(event, duration, **details):
        if name in event:
            events.append(details.get("fun_name", event))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)

"""What JAX traces and compiles while a block of code runs."""

from contextlib import contextmanager

import jax

# Of XLA's compiler alone.
BACKEND = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compile_events(name="compile"):
    """Names of JAX's events of tracing and compiling, or of those that contain some other name."""
    events = []

    def listen(event, duration, **_):
        if name in event:
            events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield events
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)

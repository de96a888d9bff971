"""Pictures of answers."""

from jaxrelu.plotting.paths import plot_path as plot_path

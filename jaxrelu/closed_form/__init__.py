"""Closed forms: data for which the optimal network is known without the general solver."""

from jaxrelu.closed_form.answer import ClosedForm as ClosedForm
from jaxrelu.closed_form.rank_one_data import rank_one as rank_one
from jaxrelu.closed_form.separable_data import Separable as Separable
from jaxrelu.closed_form.separable_data import separable as separable
from jaxrelu.closed_form.sparsest_interpolants import L0L1 as L0L1
from jaxrelu.closed_form.sparsest_interpolants import l0_l1_equivalent as l0_l1_equivalent
from jaxrelu.closed_form.spike_free_data import SpikeFree as SpikeFree
from jaxrelu.closed_form.spike_free_data import is_spike_free as is_spike_free
from jaxrelu.closed_form.spike_free_data import spike_free as spike_free
from jaxrelu.closed_form.splines import Spline as Spline
from jaxrelu.closed_form.splines import spline as spline
from jaxrelu.closed_form.splines import spline_matrix as spline_matrix
from jaxrelu.closed_form.splines import spline_norm as spline_norm
from jaxrelu.closed_form.whitened_data import whitened as whitened
from jaxrelu.closed_form.whitened_outputs import soft_thresholded_svd as soft_thresholded_svd

"""Tables of numbers to fit: reading, splitting, scaling, scoring. NumPy arrays on the host."""

from jaxrelu.datasets.splits import Split as Split
from jaxrelu.datasets.splits import prepare as prepare
from jaxrelu.datasets.splits import score as score
from jaxrelu.datasets.splits import standardize as standardize
from jaxrelu.datasets.splits import train_test_split as train_test_split
from jaxrelu.datasets.tables import Dataset as Dataset
from jaxrelu.datasets.tables import Task as Task
from jaxrelu.datasets.tables import load_breast_cancer as load_breast_cancer
from jaxrelu.datasets.tables import read_csv as read_csv

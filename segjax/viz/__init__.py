"""Pictures, curves and the report of a run."""

from segjax.viz.curves import curves as curves
from segjax.viz.overlay import colour as colour
from segjax.viz.overlay import errors as errors
from segjax.viz.overlay import overlay as overlay
from segjax.viz.palette import palette as palette
from segjax.viz.report import read_records as read_records
from segjax.viz.report import write_report as write_report
from segjax.viz.seeds import seed_curves as seed_curves
from segjax.viz.triptych import contact_sheet as contact_sheet
from segjax.viz.triptych import triptych as triptych

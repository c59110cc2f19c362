"""Pictures, curves and the report of a run."""

from segjax.viz.curves import curves as curves
from segjax.viz.inspection import Card as Card
from segjax.viz.inspection import inspection_sheet as inspection_sheet
from segjax.viz.inspection import object_panels as object_panels
from segjax.viz.inspection import panels as panels
from segjax.viz.inspection import write_inspection as write_inspection
from segjax.viz.instances import instance_triptych as instance_triptych
from segjax.viz.instances import instances as instances
from segjax.viz.instances import outlines as outlines
from segjax.viz.legend import legend as legend
from segjax.viz.overlay import color as color
from segjax.viz.overlay import errors as errors
from segjax.viz.overlay import overlay as overlay
from segjax.viz.palette import palette as palette
from segjax.viz.report import read_records as read_records
from segjax.viz.report import write_report as write_report
from segjax.viz.rgb import to_rgb as to_rgb
from segjax.viz.seeds import seed_curves as seed_curves
from segjax.viz.triptych import contact_sheet as contact_sheet
from segjax.viz.triptych import triptych as triptych

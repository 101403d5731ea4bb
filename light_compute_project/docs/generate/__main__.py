"""Write the generated tables and plots of the pages: settings, memory per GPU, optimizers, what is measured.

python light_compute_project/docs/generate
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from docs.generate import config_tables, measured_pages, memory_page, optim_plots

    config_tables.update()
    memory_page.main()
    measured_pages.update()
    optim_plots.draw_all()
